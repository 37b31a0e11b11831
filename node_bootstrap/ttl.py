"""When the nodes of a stack end by themselves, and the document that puts it off."""

from __future__ import annotations

from dataclasses import dataclass

EXTENSION_KEY = "ttl.json"
"""S3 key of a stack's `Extension`."""


@dataclass(frozen=True)
class Ttl:
    """The node ends by itself so long after its first boot, unless the bucket says later.

    key: S3 key of the `Extension`; it is there only once somebody has asked for one.
    """

    seconds: float
    key: str = EXTENSION_KEY


@dataclass(frozen=True)
class Extension:
    """Nodes of the stack go on until then, in seconds since the epoch: what `moe extend` writes."""

    schema: int
    until: float
