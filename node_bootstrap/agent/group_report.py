"""The group as its primary reports it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node_bootstrap.agent.group import Group, phase, waiting_for, wants
from node_bootstrap.agent.group_faults import fresh
from node_bootstrap.status import GroupReport, MemberReport

if TYPE_CHECKING:
    from node_bootstrap.agent.protocol import Now


def report(group: Group, now: Now) -> GroupReport:
    """The group for the status document."""
    return GroupReport(
        revision=group.plan.revision,
        generation=group.generation,
        phase=phase(group, now),
        since=group.since,
        members=tuple(_member_report(group, name, now) for name in group.plan.members),
        probes=tuple(group.answers[rank] for rank in sorted(group.answers)),
        restarts=group.restarts,
        waiting_for=waiting_for(group, now),
        transfer=group.transfer,
        wants=wants(group, now),
    )


def _member_report(group: Group, name: str, now: Now) -> MemberReport:
    view = group.members.get(name)
    if view is None or view.beat is None:
        return MemberReport(name, "", "", "silent", 0, 0.0)
    beat = view.beat
    return MemberReport(
        name=name,
        instance_id=beat.instance_id,
        boot_id=beat.boot_id,
        phase=beat.phase if fresh(group, view, now) else "silent",
        generation=beat.started.generation if beat.started else 0,
        heard_at=view.heard_epoch,
        kv_fault=beat.kv_fault,
    )
