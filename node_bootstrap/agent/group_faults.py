"""What a group holds against its members: before it starts, and while it runs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node_bootstrap.agent.group import Group, MemberView
    from node_bootstrap.agent.protocol import Now


def fresh(group: Group, view: MemberView, now: Now) -> bool:
    """Whether a member was heard within the silence that is allowed."""
    return now.mono - view.heard_at <= group.plan.silence_seconds


def fault(group: Group, now: Now) -> str:
    """Why this generation has to end; empty while nothing is wrong with it."""
    if group.ordered:
        return group.ordered
    if group.role.ended(group.pair):
        return f"{group.plan.primary}: its vLLM ended {group.role.detail}".rstrip()
    for name in group.plan.members:
        if cause := _member_fault(group, name, now):
            return f"{name} {cause}"
    if group.ready and group.probe_error:
        return group.probe_error
    waited = now.mono - group.started_at
    if not group.ready and waited > group.plan.start_seconds:
        silent = [r for r in range(group.plan.ranks) if r not in group.answers]
        last = f" (last: {group.probe_error})" if group.probe_error else ""
        return f"not ready after {waited:.0f} s: no answer of ranks {silent}{last}"
    return ""


def _member_fault(group: Group, name: str, now: Now) -> str:  # noqa: PLR0911 - a list of rules
    view = group.members.get(name)
    if view is None:
        return "was never heard"
    if not fresh(group, view, now):
        return f"has been silent for {now.mono - view.heard_at:.1f} s"
    beat = view.beat
    if beat is None:  # not heard since this agent restarted
        return ""
    bound = group.bound.get(name)
    if bound is not None and bound[0] != beat.instance_id:
        return f"is another instance ({beat.instance_id} instead of {bound[0]})"
    if bound is not None and bound[1] != beat.boot_id:
        return "was rebooted"
    if beat.started is not None and beat.started.generation > group.generation:
        return f"was already at generation {beat.started.generation}"
    if beat.phase == "failed" and beat.acknowledged == group.generation:
        return f"failed: its vLLM ended {beat.detail}".rstrip()
    if view.ran and beat.phase != "running":
        return f"no longer runs its vLLM {beat.detail}".rstrip()
    return ""


def missing(group: Group, name: str, now: Now) -> str:  # noqa: PLR0911 - a list of rules
    """What a member lacks before the group can start; empty when it lacks nothing."""
    view = group.members.get(name)
    if view is None or view.beat is None:
        return "has not been heard yet"
    if not fresh(group, view, now):
        return f"has been silent for {now.mono - view.heard_at:.0f} s"
    if view.beat.phase == "running":
        return "still runs its vLLM"
    if view.beat.phase == "preparing":
        return f"is not prepared yet {view.beat.detail}".rstrip()
    if view.beat.revision != group.plan.revision:
        return f"is prepared for revision {view.beat.revision}, not {group.plan.revision}"
    # Without this, an answer still on its way could start the member for the generation before.
    if view.beat.acknowledged != group.generation:
        return f"does not know of generation {group.generation} yet"
    return ""
