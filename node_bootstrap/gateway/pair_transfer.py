"""The measured transfer between a prefill and a decode group: ordered of a node of each.

Once for the same instances: a pair whose groups start anew for another reason is not measured
again. One that was not as planned is, each time that the pair is tried.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from node_bootstrap.assignment import GatewayGroup, Member, Transfer
from node_bootstrap.gateway.peers import PeerError
from node_bootstrap.status import TransferReport
from node_bootstrap.steps.base import key_of
from node_bootstrap.transfer.pair import MeasureOrder, MeasureReport

POLL_SECONDS = 0.5
LATE_SECONDS = 45.0
"""Beyond the measurement's own limit: two agents start and end it."""

Ask = Callable[[Member, MeasureOrder], MeasureReport]


@dataclass(frozen=True)
class Kept:
    """What was measured for a pair. subject: digest of what was to be measured, and its floors."""

    prefill: str
    decode: str
    subject: str
    report: TransferReport


def measure(
    prefill: GatewayGroup, decode: GatewayGroup, ask: Ask, known: TransferReport | None
) -> TransferReport | None:
    """What the pair's transfer reaches; None where nothing is to be measured. Takes its time.

    Args:
        prefill: the group that KV is read from.
        decode: the group that reads it; it has what is to be measured.
        ask: has a node take part; PeerError when it can't be asked.
        known: what was measured last.
    """
    wanted = decode.transfer
    if wanted is None:
        return None
    ends = (prefill.members[0], decode.members[0])
    began, at = time.monotonic(), time.time()
    try:
        key = _key(wanted, [ask(end, MeasureOrder()) for end in ends])
    except PeerError as error:
        return _report(wanted, "", (at, 0.0), {}, (f"a node can't be asked: {error}",))
    if known is not None and known.key == key and not known.faults:
        return known
    names, addresses = zip(*((end.name, end.address) for end in ends), strict=True)
    order = MeasureOrder(uuid.uuid4().hex, wanted, names, addresses)
    told: dict[str, MeasureReport] = {}
    until = began + wanted.limit_seconds + LATE_SECONDS
    while len(told) < len(ends) and time.monotonic() < until:
        told |= dict(_done(ends, order, ask))
        time.sleep(0 if len(told) == len(ends) else POLL_SECONDS)
    faults = tuple(_faults(ends, told))
    return _report(wanted, key, (at, time.monotonic() - began), told, faults)


def subject(wanted: Transfer) -> str:
    """Digest of what is to be measured: other floors make a new measurement."""
    return key_of(wanted)


def reason(report: TransferReport | None) -> str:
    """Why the pair may not serve; empty where it may."""
    if report is None or not report.required or not report.faults:
        return ""
    return f"the transfer between its nodes: {'; '.join(report.faults)}"


def _done(
    ends: tuple[Member, ...], order: MeasureOrder, ask: Ask
) -> Iterator[tuple[str, MeasureReport]]:
    for end in ends:
        try:
            answer = ask(end, order)
        except PeerError:  # its agent may be starting anew
            continue
        if answer.token == order.token:
            yield end.name, answer


def _faults(ends: tuple[Member, ...], told: dict[str, MeasureReport]) -> Iterator[str]:
    for end in ends:
        if end.name not in told:
            yield f"{end.name}: the measurement was not done"
        else:
            yield from (f"{end.name}: {fault}" for fault in told[end.name].outcome.faults)


def _key(wanted: Transfer, asked: list[MeasureReport]) -> str:
    return key_of((subject(wanted), [report.instance_id for report in asked]))


def _report(
    wanted: Transfer,
    key: str,
    times: tuple[float, float],
    told: dict[str, MeasureReport],
    faults: tuple[str, ...],
) -> TransferReport:
    return TransferReport(
        key=key,
        at=times[0],
        seconds=round(times[1], 1),
        required=wanted.mode == "require",
        items=tuple(item for report in told.values() for item in report.outcome.items),
        network="NIXL",
        faults=faults,
    )
