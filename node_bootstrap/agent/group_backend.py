"""Which all2all backend a group runs: one that every node of it can run. Pure.

Ranks of different backends never meet in one collective, so a single node that lacks the library
takes the whole group to the fallback, before any vLLM starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from node_bootstrap.agent.events import Backend

if TYPE_CHECKING:
    from node_bootstrap.agent.group import Group


def agree(group: Group) -> Backend:
    """The planned backend if all can run it, else the fallback of those that can't, and why."""
    able = {group.plan.primary: group.able}
    for name in group.plan.members:
        view = group.members.get(name)
        if view is not None and view.beat is not None:
            able[name] = Backend(view.beat.backend, view.beat.backend_why)
    unable = [(name, one) for name, one in able.items() if one.why]
    if not unable:
        return group.able
    why = "; ".join(f"{name}: {one.why}" for name, one in unable)
    return Backend(unable[0][1].name, why)
