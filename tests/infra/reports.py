"""Parts of a status that several tests need."""

from __future__ import annotations

from node_bootstrap.status import PairReport


def pair(**changes) -> PairReport:
    """A pair through which a completion went, with these fields changed."""
    given = {
        "prefill": "prefill-0 r1/1",
        "decode": "decode-0 r1/2",
        "ok": True,
        "reason": "",
        "seconds": 1.26,
        "bytes_moved": 3 << 20,
        "external_hits": 16,
        "failed_transfers": 0,
        "at": 1.0,
    }
    return PairReport(**(given | changes))
