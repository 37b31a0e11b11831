"""Whether a measured transfer went the planned way, and fast enough. Pure: of its output."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from node_bootstrap.assignment import Transfer
from node_bootstrap.facts import nccl_log, nixl_log
from node_bootstrap.facts.base import Unknown
from node_bootstrap.status import TransferItem

FIGURES, NIXL = "TRANSFER ", "NIXL "


@dataclass(frozen=True)
class Outcome:
    """What one node says of a measurement. items: of the first node alone; seconds: that it took.

    faults: what is not as planned on this node. nics: that NCCL found; None where it doesn't say.
    """

    items: tuple[TransferItem, ...] = ()
    seconds: float = 0.0
    network: str = ""
    nics: int | None = None
    faults: tuple[str, ...] = ()


def outcome(wanted: Transfer, output: str, seconds: float, *, first: bool) -> Outcome:
    """Judge the output of a node whose processes ended well.

    Args:
        wanted: what was to be measured, and its floors.
        output: all that the node's processes wrote.
        seconds: that they took.
        first: it is the node that prints the figures.
    """
    items = figures(wanted, output) if first else ()
    faults = [*nixl_faults(wanted, output)]
    network, nics = "Gloo", None
    if wanted.gpus:
        said = nccl_log.parse(output)
        faults += nccl_faults(wanted, said)
        network = "" if isinstance(said, Unknown) else ", ".join(said.networks)
        nics = None if isinstance(said, Unknown) else said.nics
    if first:
        faults += below(wanted, items)
    return Outcome(items, round(seconds, 1), network, nics, tuple(faults))


def figures(wanted: Transfer, output: str) -> tuple[TransferItem, ...]:
    """What was measured, each with its floor."""
    return tuple(
        TransferItem(
            name=made["name"],
            gb_per_second=float(made["gb_per_second"]),
            floor=wanted.floors.get(made["name"]),
            payload_bytes=int(made["payload_bytes"]),
            times=int(made["times"]),
        )
        for made in _said(FIGURES, output, default=[])
    )


def below(wanted: Transfer, items: tuple[TransferItem, ...]) -> tuple[str, ...]:
    """What was to be measured and was not, and what is slower than its floor."""
    have = {item.name: item for item in items}
    missing = [f"{name} was not measured" for name in sorted(wanted.floors) if name not in have]
    slow = [
        f"{item.name} moves {item.gb_per_second:.3g} GB/s, the floor is {item.floor:.3g}"
        for item in items
        if item.floor is not None and item.gb_per_second < item.floor
    ]
    return (*missing, *slow)


def nccl_faults(wanted: Transfer, said: nccl_log.NcclLog | Unknown) -> tuple[str, ...]:
    """Where NCCL went another way than the plan's provider."""
    if not wanted.provider:
        return ()
    if isinstance(said, Unknown):
        return (said.unknown,)
    found = []
    if said.on_sockets:
        why = f" ({'; '.join(said.trouble)})" if said.trouble else ""
        found.append(f"NCCL uses sockets, the plan is {wanted.provider}{why}")
    elif said.providers != (wanted.provider,):
        named = ", ".join(said.providers) or "none"
        found.append(f"NCCL's libfabric provider is {named}, the plan is {wanted.provider}")
    elif said.nics is None and wanted.nics:
        found.append(f"NCCL did not say how many NICs it found, the plan has {wanted.nics}")
    if said.nics is not None and said.nics < wanted.nics:
        found.append(f"NCCL found {said.nics} NICs, the plan has {wanted.nics}")
    return tuple(found)


def nixl_faults(wanted: Transfer, output: str) -> tuple[str, ...]:
    """Where NIXL moved bytes with another backend, or without the plugin that it named."""
    if not wanted.nixl:
        return ()
    told: dict[str, Any] = _said(NIXL, output, default={})
    if told.get("missing", True):
        return ("NIXL can't be imported where vLLM runs",)
    said = nixl_log.parse(output)
    backends = () if isinstance(said, Unknown) else said.backends
    trouble = () if isinstance(said, Unknown) else said.trouble
    plan = " or ".join(wanted.nixl)
    found = [f"NIXL: {line}" for line in trouble]
    if not backends:
        found.append(f"NIXL did not say which backend it made, the plan is {plan}")
    found += [f"NIXL made {b}, the plan is {plan}" for b in backends if b not in wanted.nixl]
    mapped = " ".join(str(p) for p in told.get("plugins", ()))
    found += [
        f"NIXL's plugin {b} is not in its process"
        for b in backends
        if f"libplugin_{b}." not in mapped
    ]
    return tuple(found)


def _said(prefix: str, output: str, *, default: Any) -> Any:
    for line in output.splitlines():
        if line.startswith(prefix):
            try:
                return json.loads(line.removeprefix(prefix))
            except ValueError:
                return default
    return default
