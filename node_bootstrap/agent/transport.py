"""What KV moves over, by NIXL's and UCX's own words, and whether that is what was planned. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node_bootstrap.assignment import KvTransfer

_BACKEND = re.compile(r"Backend (\w+) was instantiated")
_ENDPOINT = re.compile(r"UCX\s+INFO\s+\S+ (?P<to>self|intra-node|inter-node) cfg#\d+ (?P<lanes>.+)")
_RMA_LANES = re.compile(r"\brma\w*\((?P<names>[^)]*)\)")
"""Blocks are read with remote memory access, or its emulation over messages (rma_am)."""
OVER_TCP = "tcp/"


@dataclass(frozen=True)
class KvWords:
    """What the role said so far of how it moves KV.

    backends: of NIXL. own: UCX's transports to this node itself, named at start. peers: to other
    nodes, named once blocks were asked for.
    """

    backends: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For the status: `UCX tcp/ens5`; empty while nothing was said."""
        return " ".join((*self.backends, *(self.peers or self.own)))

    def join(self, later: KvWords) -> KvWords:
        """All that was said: the log that is read is the end of it."""
        return KvWords(
            _sorted(self.backends, later.backends),
            _sorted(self.own, later.own),
            _sorted(self.peers, later.peers),
        )

    @property
    def whole(self) -> bool:
        """Whether more reading brings nothing: only UCX names the transport of each peer."""
        return bool(self.peers) or (bool(self.backends) and "UCX" not in self.backends)


def words(log: str) -> KvWords:
    """What a role's log says of it."""
    own: set[str] = set()
    peers: set[str] = set()
    for endpoint in _ENDPOINT.finditer(log):
        for lane in _RMA_LANES.finditer(endpoint["lanes"]):
            names = lane["names"].split()
            (peers if endpoint["to"] == "inter-node" else own).update(names)
    backends = {found[1] for found in _BACKEND.finditer(log)}
    return KvWords(tuple(sorted(backends)), tuple(sorted(own)), tuple(sorted(peers)))


def fault(planned: KvTransfer, said: KvWords) -> str:
    """Why KV doesn't move as planned; empty where it does, or where nothing was said yet."""
    plan = f"the plan names {planned.transport} with {' or '.join(planned.backends)}"
    strange = sorted(set(said.backends) - set(planned.backends))
    if strange:
        return f"NIXL moves KV with {', '.join(strange)}; {plan}"
    if planned.transport == "tcp":
        other = sorted(n for n in {*said.own, *said.peers} if not n.startswith(OVER_TCP))
        if other:
            return f"UCX moves KV over {', '.join(other)}; {plan}"
    return ""


def _sorted(*parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({name for part in parts for name in part}))
