"""What a primary remembers of its group over the agent's death: written before it is acted on.

It keeps the generation from going backwards, and a running group running.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from node_bootstrap.agent.events import Backend
from node_bootstrap.agent.group import Group, MemberView, Plan
from node_bootstrap.status import Restart, TransferReport

if TYPE_CHECKING:
    from node_bootstrap.agent.protocol import Now, RoleView


@dataclass(frozen=True)
class GroupRecord:
    """The lasting part of a primary's group. `boot_id`: the times are of this boot."""

    boot_id: str
    plan: Plan
    generation: int
    since: float
    restarts: tuple[Restart, ...]
    started: bool
    started_at: float
    ready: bool
    not_before: float
    streak: int
    bound: dict[str, tuple[str, ...]]
    transfer: TransferReport | None = None
    backend: Backend = Backend()  # noqa: RUF009 - frozen, so sharing it is safe


def record(group: Group, boot_id: str) -> GroupRecord:
    """The lasting part of a group."""
    return GroupRecord(
        boot_id=boot_id,
        plan=group.plan,
        generation=group.generation,
        since=group.since,
        restarts=group.restarts,
        started=group.started,
        started_at=group.started_at,
        ready=group.ready,
        not_before=group.not_before,
        streak=group.streak,
        bound=dict(group.bound),
        transfer=group.transfer,
        backend=group.backend,
    )


def restore(
    saved: GroupRecord, boot_id: str, role: RoleView, now: Now, instance: str = ""
) -> Group:
    """The group of a restarted agent: every member gets a whole silence to be heard again.

    role: as it is now; without it, a heartbeat before the first tick would be told to stop.
    """
    same_boot = saved.boot_id == boot_id
    return Group(
        plan=saved.plan,
        generation=saved.generation,
        since=saved.since,
        restarts=saved.restarts,
        started=saved.started,
        started_at=saved.started_at if same_boot else now.mono,
        ready=saved.ready,
        not_before=saved.not_before if same_boot else now.mono,
        streak=saved.streak,
        role=role,
        members={name: MemberView(now.mono) for name in saved.plan.members},
        bound={name: (ids[0], ids[1]) for name, ids in saved.bound.items()},
        transfer=saved.transfer,
        backend=saved.backend,
        instance=instance,
    )
