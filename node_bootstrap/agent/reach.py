"""Which TCP ports of other nodes this node can't reach, and why: asked for when KV doesn't move."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT_SECONDS = 2.0
TARGETS_MOST = 256
_AT_ONCE = 16


@dataclass(frozen=True)
class ReachOrder:
    """What to try: `address:port` each."""

    targets: tuple[str, ...]


@dataclass(frozen=True)
class ReachReport:
    """What was not reached: target -> why."""

    unreached: dict[str, str]


def reach(order: ReachOrder) -> ReachReport:
    """Open and close a connection to each target, side by side; the first TARGETS_MOST of them."""
    targets = order.targets[:TARGETS_MOST]
    if not targets:
        return ReachReport({})
    with ThreadPoolExecutor(min(_AT_ONCE, len(targets))) as pool:
        answers = pool.map(_try, targets)
    return ReachReport({t: why for t, why in zip(targets, answers, strict=True) if why})


def side_channels(members: Sequence[tuple[str, int, int]], port: int) -> tuple[str, ...]:
    """Where a group answers NIXL's handshakes: one port a rank, on the node that has the rank.

    Args:
        members: (address, first rank, ranks) of each node.
        port: of rank 0.
    """
    return tuple(
        f"{address}:{port + rank}"
        for address, first, ranks in members
        for rank in range(first, first + ranks)
    )


def _try(target: str) -> str:
    """Why it was not reached; empty when it was."""
    host, _, port = target.rpartition(":")
    if not host or not port.isdigit():
        return "not address:port"
    try:
        socket.create_connection((host, int(port)), TIMEOUT_SECONDS).close()
    except TimeoutError:
        return f"no answer within {TIMEOUT_SECONDS:g} s"
    except (OSError, OverflowError) as error:
        return str(error)
    return ""
