"""The measured transfer between nodes, of a group or of a pair: whether, of what, how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra import catalog
from infra.catalog.transfer_floors import COLLECTIVES, DRAM, ITEMS, VRAM, transfer_floor
from node_bootstrap.assignment import Transfer

if TYPE_CHECKING:
    from infra.plan.kv_transfer import KvTransfer
    from infra.plan.request import TransferOptions
    from infra.plan.topology import GroupPlace, Transport

_LARGEST_BYTES = {True: 1 << 30, False: 16 << 20}
"""Of one rank's buffer, on GPUs and on CPUs: EFA needs large messages to reach what it can."""
_PAIR_BYTES = {True: 64 << 20, False: 16 << 20}
"""The same, between two groups: vLLM has the rest of the GPU's memory."""
PAIR_PORT = 29512
_LIMIT_SECONDS = {True: 300.0, False: 120.0}
"""On GPUs NCCL first meets on every NIC of every node, and a container starts."""


def transfer(
    options: TransferOptions,
    instance: catalog.InstanceType,
    nodes: int,
    transport: Transport,
    kv: KvTransfer | None,
) -> Transfer | None:
    """None where nothing is measured: one node, or asked not to.

    Left to the plan, it is required where expert tokens cross EFA. NIXL is measured where the group
    hands KV over with it, and where a floor is given for it.
    """
    mode = options.mode or ("require" if transport == "efa" else None)
    if nodes < 2 or mode is None or mode == "off":
        return None
    gpus = instance.gpu_count
    names = list(COLLECTIVES)
    given = dict(options.floors)
    if kv is not None or DRAM in given or VRAM in given:
        names += [DRAM, VRAM] if gpus else [DRAM]
    on_efa = bool(gpus) and transport == "efa"
    floors = {
        name: given.get(name, transfer_floor(instance, name) if on_efa else None)
        for name in ITEMS
        if name in names
    }
    backends = kv.backends if kv is not None else ("LIBFABRIC",) if on_efa else ("UCX",)
    return Transfer(
        mode=mode,
        floors=floors,
        provider="efa" if on_efa else "",
        nics=instance.max_efa if on_efa else 0,
        nixl=tuple(backends) if DRAM in names else (),
        gpus=gpus,
        largest_bytes=_LARGEST_BYTES[gpus > 0],
        limit_seconds=_LIMIT_SECONDS[gpus > 0],
    )


def pair_transfer(
    options: TransferOptions, place: GroupPlace, kv: KvTransfer | None
) -> Transfer | None:
    """Of NIXL, between a node of a decode group and one of each prefill group.

    None for other groups, and where nothing is measured. Left to the plan, it is required where KV
    crosses EFA. One GPU of each node takes part.
    """
    instance = place.instance_type
    on_efa = kv is not None and kv.transport == "efa" and bool(instance.gpu_count)
    mode = options.mode or ("require" if on_efa else None)
    if kv is None or place.role != "decode" or mode is None or mode == "off":
        return None
    given, gpus = dict(options.floors), min(1, instance.gpu_count)
    names = [DRAM, VRAM] if gpus else [DRAM]
    floors = {n: given.get(n, transfer_floor(instance, n) if on_efa else None) for n in names}
    return Transfer(
        mode=mode,
        floors=floors,
        nixl=tuple(kv.backends),
        gpus=gpus,
        largest_bytes=_PAIR_BYTES[gpus > 0],
        limit_seconds=_LIMIT_SECONDS[gpus > 0],
        port=PAIR_PORT,
    )
