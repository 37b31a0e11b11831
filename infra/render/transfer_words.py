"""What was settled before requests come, in words: transfers, KV of pairs, all2all backends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from node_bootstrap.status import BackendReport, PairReport, TransferItem, TransferReport


class Settled(Protocol):
    """A group of a report."""

    @property
    def name(self) -> str:
        """Of the group."""
        ...

    @property
    def transfer(self) -> TransferReport | None:
        """Measured between its nodes."""
        ...

    @property
    def backend(self) -> BackendReport | None:
        """For all2all."""
        ...

    @property
    def pairs(self) -> tuple[PairReport, ...]:
        """That a completion was tried through; of the gateway."""
        ...


def of_group(group: Settled) -> Iterator[str]:
    """Lines for a person; none where there is nothing to tell."""
    if group.transfer is not None:
        yield f"transfer of {group.name}: {figures(group.transfer)}"
        yield from (f"  {fault}" for fault in group.transfer.faults)
    backend = group.backend
    if backend is not None and backend.in_effect != backend.planned:
        yield (
            f"all2all backend of {group.name}: {backend.in_effect} instead of {backend.planned}: "
            f"{backend.why}"
        )
    for pair in group.pairs:
        yield f"pair {pair_name(pair)}: {tried(pair)}"
        if pair.transfer is not None:
            yield f"  transfer: {figures(pair.transfer)}"
            yield from (f"  {fault}" for fault in pair.transfer.faults)


def pair_name(pair: PairReport) -> str:
    """`prefill-0 with decode-0`, whatever lives they have."""
    return " with ".join(side.partition(" ")[0] for side in (pair.prefill, pair.decode))


def figures(measured: TransferReport) -> str:
    """All figures in one line, each beside its floor."""
    over = f" over {measured.network}" if measured.network else ""
    nics = f", {measured.nics} NICs" if measured.nics else ""
    return ", ".join(map(_item, measured.items)) + over + nics if measured.items else "no figures"


def tried(pair: PairReport) -> str:
    """What came of its last whole completion."""
    if not pair.ok:
        return f"{pair.failures} whole completions in a row failed, the last one: {pair.reason}"
    return f"a whole completion in {pair.seconds:.1f} s, {pair.bytes_moved / 2**20:.1f} MiB of KV"


def _item(item: TransferItem) -> str:
    floor = "not judged" if item.floor is None else f"floor {item.floor:.3g}"
    return f"{item.name} {item.gb_per_second:.3g} GB/s ({floor})"
