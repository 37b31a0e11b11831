"""What KV and tokens move over, by the role's own words, and whether that is as planned. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from node_bootstrap.agent import logs

if TYPE_CHECKING:
    from node_bootstrap.assignment import KvTransfer

_BACKEND = re.compile(r"Backend (\w+) was instantiated")
_ENDPOINT = re.compile(r"UCX\s+INFO\s+\S+ (?P<to>self|intra-node|inter-node) cfg#\d+ (?P<lanes>.+)")
_RMA_LANES = re.compile(r"\brma\w*\((?P<names>[^)]*)\)")
"""Blocks are read with remote memory access, or its emulation over messages (rma_am)."""
OVER_TCP = "tcp/"
ALL2ALL_VARIABLE = "VLLM_ALL2ALL_BACKEND"


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


def manager_fault(argv: Sequence[str], env: Mapping[str, str], said: str | None) -> str:
    """Why vLLM's all2all manager is not the one that it was started with; empty where it is.

    Args:
        argv: vLLM was started with it.
        env: as well; releases up to 0.13 take the backend from there.
        said: the backend by vLLM's log; None where it said nothing of it yet.
    """
    words = list(argv)
    flag = "--all2all-backend"
    asked = words[words.index(flag) + 1] if flag in words[:-1] else env.get(ALL2ALL_VARIABLE, "")
    # A manager that this program has no name for is told in the status, and not judged.
    if not asked or said is None or said not in logs.BACKENDS or said == asked:
        return ""
    return f"vLLM exchanges tokens with {said}, it was started with {asked}"


def _sorted(*parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({name for part in parts for name in part}))
