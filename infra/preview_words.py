"""A preview as lines for a person, and for a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.preview import GroupChange, NodeChange, Preview

_OTHERS = {
    "create": "made",
    "update": "changed in place",
    "replace": "replaced",
    "delete": "deleted",
}


def lines(preview: Preview) -> Iterator[str]:
    """One line for each thing that a person should know, the weightiest first."""
    changed = [group for group in preview.groups if group.effect != "goes on"]
    order = ("replaced", "removed", "restarted", "made")
    for group in sorted(changed, key=lambda g: (order.index(g.effect), g.name)):
        yield _group(group)
    yield from _silence(preview)
    yield from _bootstraps(preview)
    yield from _outgrown(preview)
    if preview.lost:
        yield f"Replaced or deleted beside the nodes: {', '.join(preview.lost)}."
    if preview.others:
        told = ", ".join(f"{n} {_OTHERS.get(op, op)}" for op, n in preview.others.items())
        yield f"Everything else: {told}."
    if not changed and not preview.others and not _told_anew(preview):
        yield "Nothing changes."
    yield _cost(preview)


def _group(group: GroupChange) -> str:
    by_fate = {
        fate: [node for node in group.nodes if node.fate == fate]
        for fate in ("made", "replaced", "removed", "kept")
    }
    if group.effect == "made":
        return f"{group.name} is made: {_nodes(by_fate['made'])}."
    if group.effect == "removed":
        return f"{group.name} is removed: {_nodes(by_fate['removed'])}."
    parts = []
    if by_fate["replaced"]:
        reasons = dict.fromkeys(r for node in by_fate["replaced"] for r in node.reasons)
        why = f" ({'; '.join(reasons)})" if reasons else ""
        parts.append(f"{_nodes(by_fate['replaced'])} replaced{why}")
    parts += [f"{_nodes(by_fate[fate])} {fate}" for fate in ("made", "removed") if by_fate[fate]]
    if not parts:
        return f"{group.name} restarts vLLM in place, no node is replaced: {_silent(group)}."
    return f"{group.name}: {', '.join(parts)}: {_silent(group)}."


def _silent(group: GroupChange) -> str:
    seconds, found = group.silent_seconds, group.measured
    if found is not None and seconds is None:
        return (
            f"it won't answer for the boot and the steps of a node, which the last update did not "
            f"measure, and {found.start:.0f} s of vLLM's start"
        )
    if seconds is None or found is None:
        return "how long it won't answer is not known, for no start of it was measured"
    if group.effect == "restarted":
        return f"it won't answer for about {seconds:.0f} s (its last start)"
    return (
        f"it won't answer for about {seconds:.0f} s and the end of the old instances (last time: "
        f"boot {found.boot or 0:.0f} s, steps {found.steps or 0:.0f} s, vLLM {found.start:.0f} s)"
    )


def _silence(preview: Preview) -> Iterator[str]:
    """Replicas that stop together leave nobody to answer."""
    stopped = [g for g in preview.groups if g.effect in ("replaced", "restarted")]
    there = [g for g in preview.groups if g.effect not in ("made", "removed")]
    turns = [
        g for g in stopped if g.takes_turns and sum(other.role == g.role for other in there) > 1
    ]
    if turns:
        ranked = sorted(turns, key=lambda g: (g.name.rpartition("-")[2], g.role == "decode"))
        yield (
            f"One after the other: {', '.join(g.name for g in ranked)}. The next begins when the "
            "one before answers and is routed to again; a group that doesn't come back ends the "
            "update, and the others go on as they are."
        )
        alone = [g.name for g in stopped if g not in turns and (g.role or g.name) != "gateway"]
        if not any(g.name == "gateway" and g.effect == "replaced" for g in stopped):
            yield (
                f"Nobody answers while {', '.join(alone)} is away."
                if alone
                else "Service stays, without the group whose turn it is."
            )
        return
    if stopped and len(stopped) == len(there) and len(there) > 1:
        yield f"All {len(there)} groups stop at the same time: nobody answers meanwhile."
    elif stopped and len(there) > len(stopped):
        yield f"{len(there) - len(stopped)} of {len(there)} groups go on answering."


def _bootstraps(preview: Preview) -> Iterator[str]:
    told = _told_anew(preview)
    bootstraps = [n for n in told if n.told == "another bootstrap"]
    others = [n for n in told if n.told == "something else"]
    if bootstraps:
        yield f"New bootstrap for {_nodes(bootstraps)}: agents restart, vLLM goes on."
    if others:
        yield f"{_nodes(others)} told something that restarts nothing (such as its ttl)."


def _outgrown(preview: Preview) -> Iterator[str]:
    """The newest image replaces no node by itself, so a node of another kind keeps its old one."""
    found = [node for group in preview.groups for node in group.nodes if node.outgrown]
    for kind in dict.fromkeys(node.outgrown for node in found):
        nodes = _nodes([node for node in found if node.outgrown == kind])
        yield (
            f"{nodes}: image and root volume stay what they were for {kind}, and may not do for "
            "what they become. Name an image as moe-serving:ami, or `destroy` and `up`."
        )


def _told_anew(preview: Preview) -> list[NodeChange]:
    return [
        node
        for group in preview.groups
        if group.effect == "goes on"
        for node in group.nodes
        if node.told != "nothing new"
    ]


def _nodes(nodes: Sequence[NodeChange]) -> str:
    names = [node.name for node in nodes]
    if len(names) > 4:
        return f"{names[0]} … {names[-1]} ({len(names)} nodes)"
    return ", ".join(names)


def _cost(preview: Preview) -> str:
    cost = preview.cost
    text = f"${cost.after:.2f} an hour"
    if abs(cost.after - cost.before) >= 0.005:
        text = f"${cost.before:.2f} an hour now, ${cost.after:.2f} after"
    if cost.unpriced:
        text += f", without {', '.join(cost.unpriced)} (no price known)"
    return f"Nodes cost {text}, on-demand."
