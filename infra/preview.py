"""What an update would do, in words: which nodes, how long without an answer, at what cost. Pure.

Made from `pulumi preview --json` and the record of the last update that answered.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from infra import catalog

Json = Mapping[str, Any]
Fate = Literal["made", "replaced", "removed", "kept"]
Told = Literal["nothing new", "another revision", "another bootstrap", "something else"]
Effect = Literal["made", "replaced", "restarted", "removed", "goes on"]

INSTANCE = "aws:ec2/instance:Instance"
TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
OBJECT = "aws:s3/bucketObjectv2:BucketObjectv2"
COMPONENT = "moe-serving:node:Node"
ASSIGNMENT = "-assignment"
_FATES: Mapping[str, Fate] = {
    "create": "made",
    "replace": "replaced",
    "create-replacement": "replaced",
    "delete-replaced": "replaced",
    "delete": "removed",
}
_LONGEST_BOOT_SECONDS = 1800.0
"""Boots of the largest types take minutes: beyond, it is an agent's restart that was measured."""
_LOOKS = ("read", "refresh")
_REASONS = {
    "blockDeviceMappings": "root volume",
    "capacityReservationSpecification": "reservation",
    "iamInstanceProfile": "instance profile",
    "imageId": "image",
    "instanceMarketOptions": "market",
    "instanceType": "instance type",
    "metadataOptions": "metadata service",
    "networkInterfaces": "network interfaces",
    "placement": "placement",
    "tagSpecifications": "tags",
    "userData": "user data",
}


@dataclass(frozen=True)
class NodeChange:
    """What becomes of one node. reasons: why it is replaced. type: None where it isn't there.

    takes_turns: its group changes only while others of its role serve. outgrown: what the image and
    root volume that it keeps were chosen for, where it becomes something else; else empty.
    """

    name: str
    group: str
    fate: Fate
    type_before: str | None
    type_after: str | None
    reasons: tuple[str, ...]
    told: Told
    role: str = ""
    takes_turns: bool = False
    outgrown: str = ""


@dataclass(frozen=True)
class Seconds:
    """Of a group at its last update: the slowest node's boot and steps, then vLLM's start.

    boot, steps: None where that update found the nodes there and prepared.
    """

    boot: float | None
    steps: float | None
    start: float


@dataclass(frozen=True)
class GroupChange:
    """What becomes of one replica of a group, and how long it won't answer.

    silent_seconds: as measured at the last update; None where nothing was measured, or nothing
    is to be expected.
    """

    name: str
    effect: Effect
    nodes: tuple[NodeChange, ...]
    measured: Seconds | None

    @property
    def role(self) -> str:
        """What the group does; empty where its assignment isn't known."""
        return next((node.role for node in self.nodes if node.role), "")

    @property
    def takes_turns(self) -> bool:
        """Whether it changes only while others of its role serve."""
        return any(node.takes_turns for node in self.nodes)

    @property
    def silent_seconds(self) -> float | None:
        """Seconds without an answer of this group."""
        if self.measured is None or self.effect not in ("replaced", "restarted"):
            return None
        if self.effect == "restarted":
            return self.measured.start
        if self.measured.boot is None or self.measured.steps is None:
            return None
        return self.measured.boot + self.measured.steps + self.measured.start


@dataclass(frozen=True)
class Cost:
    """Dollars per hour of all nodes, on-demand; `unpriced`: types without a price."""

    before: float
    after: float
    unpriced: tuple[str, ...]


@dataclass(frozen=True)
class Preview:
    """The whole update. others: what happens to everything but nodes, counted by operation.

    lost: other things that are replaced or deleted, by name, files in the bucket left out.
    """

    groups: tuple[GroupChange, ...]
    cost: Cost
    others: Mapping[str, int]
    lost: tuple[str, ...]


@dataclass(frozen=True)
class _Step:
    op: str
    type: str
    name: str
    parents: str
    step: Json


def build(document: Json, record: Json | None) -> Preview:
    """Make the preview.

    Args:
        document: what `pulumi preview --json` printed.
        record: `record.json` of the stack's bucket; None where there is none.
    """
    steps = _one_each(_read(step) for step in document.get("steps", ()))
    nodes = sorted(_nodes(steps), key=lambda node: node.name)
    names = dict.fromkeys(node.group for node in nodes)
    groups = [
        GroupChange(name, _effect(members), tuple(members), _measured(name, members, record))
        for name in names
        if (members := [node for node in nodes if node.group == name])
    ]
    others = [s for s in steps if COMPONENT not in f"{s.parents}${s.type}" and s.type != COMPONENT]
    changed = [s for s in others if s.op in (*_FATES, "update") and s.type.startswith("aws:")]
    # An address goes with its node; a file in the bucket is only uploaded anew.
    gone = tuple(node.name for node in nodes if node.fate == "removed")
    lost = [
        s
        for s in changed
        if _FATES.get(s.op, "made") != "made"
        and s.type != OBJECT
        and not (gone and s.name.startswith(gone))
    ]
    return Preview(
        groups=tuple(groups),
        cost=_cost(nodes),
        others=dict(sorted(Counter(s.op for s in changed).items())),
        lost=tuple(dict.fromkeys(f"{s.type.rpartition(':')[2]} {s.name}" for s in lost)),
    )


def _read(step: Json) -> _Step:
    *_, path, name = str(step["urn"]).split("::")
    parents, _, kind = path.rpartition("$")
    return _Step(str(step["op"]), kind, name, parents, step)


def _one_each(steps: Iterable[_Step]) -> list[_Step]:
    """What becomes of each resource: a refresh's look at it counts where nothing follows."""
    found: dict[str, _Step] = {}
    for step in steps:
        urn = str(step.step["urn"])
        if step.op in _LOOKS:
            found.setdefault(urn, replace(step, op="same"))
        elif urn not in found or found[urn].op == "same" or step.op != "delete-replaced":
            found[urn] = step
    return list(found.values())


def _nodes(steps: Sequence[_Step]) -> Iterable[NodeChange]:
    of_type = {
        kind: {s.name: s for s in steps if s.type == kind and s.parents.endswith(COMPONENT)}
        for kind in (INSTANCE, TEMPLATE, OBJECT)
    }
    for name, instance in of_type[INSTANCE].items():
        template = of_type[TEMPLATE].get(name)
        assignment = of_type[OBJECT].get(f"{name}{ASSIGNMENT}")
        before, after = _inputs(template, "oldState"), _inputs(template, "newState")
        fate = _FATES.get(instance.op, "kept")
        known = _content(assignment, "newState") or _content(assignment, "oldState") or {}
        yield NodeChange(
            name=name,
            group=_group(name, assignment),
            fate=fate,
            type_before=None if fate == "made" else before.get("instanceType"),
            type_after=None if fate == "removed" else after.get("instanceType"),
            reasons=_reasons(instance, template, before, after) if fate == "replaced" else (),
            told=_told(assignment),
            role=str(known.get("role", "")),
            takes_turns=bool(known.get("takes_turns", False)),
            outgrown=_outgrown(before, after, assignment) if fate == "replaced" else "",
        )


def _outgrown(before: Json, after: Json, assignment: _Step | None) -> str:
    """What a node was whose image and root volume stay though it becomes another kind of node."""
    kinds = [
        _kind(template.get("instanceType"), _content(assignment, state))
        for template, state in ((before, "oldState"), (after, "newState"))
    ]
    stays = before.get("blockDeviceMappings") == after.get("blockDeviceMappings")
    return kinds[0] if stays and "" not in kinds and kinds[0] != kinds[1] else ""


def _kind(instance_type: Any, told: Json | None) -> str:
    """Images and root volumes are chosen for one of three kinds of nodes; empty: not known."""
    if instance_type not in catalog.instance_types():
        return ""
    if not catalog.instance_type(instance_type).gpu_count:
        return "nodes without GPUs"
    runtime = ((told or {}).get("software") or {}).get("runtime")
    return f"GPU nodes with a {runtime}" if runtime else ""


def _inputs(step: _Step | None, state: str) -> Json:
    return ((step.step.get(state) or {}) if step else {}).get("inputs") or {}


def _content(step: _Step | None, state: str) -> Json | None:
    """The assignment as it was or will be; None where it isn't known yet."""
    try:
        return json.loads(_inputs(step, state).get("content", ""))
    except (TypeError, ValueError):
        return None


def _group(name: str, assignment: _Step | None) -> str:
    told = _content(assignment, "newState") or _content(assignment, "oldState")
    group = (told or {}).get("group")
    if group:
        return str(group)
    head, _, index = name.rpartition("-")
    return head if head and index.isdigit() else name


def _reasons(instance: _Step, template: _Step | None, before: Json, after: Json) -> tuple[str, ...]:
    keys = list(instance.step.get("replaceReasons") or ())
    if template is not None and "launchTemplate" in keys:
        deeper = list(template.step.get("diffReasons") or ())
        keys = [*deeper, *(key for key in keys if key != "launchTemplate")] if deeper else keys
    words = []
    for key in keys:
        word = _REASONS.get(key, key)
        old, new = before.get(key), after.get(key)
        plain = isinstance(old, str) and isinstance(new, str) and len(old) + len(new) < 80
        words.append(f"{word} {old} -> {new}" if plain else word)
    return tuple(words)


def _told(assignment: _Step | None) -> Told:
    if assignment is None or assignment.op == "same":
        return "nothing new"
    old, new = _content(assignment, "oldState"), _content(assignment, "newState")
    if old is None or new is None or old.get("revision") != new.get("revision"):
        return "another revision"
    if old.get("archive") != new.get("archive"):
        return "another bootstrap"
    return "something else"


def _effect(members: Sequence[NodeChange]) -> Effect:
    fates = {node.fate for node in members}
    if len(fates) == 1 and fates <= {"made", "removed"}:
        return "made" if fates == {"made"} else "removed"
    if "replaced" in fates:
        return "replaced"
    told = any(n.told == "another revision" for n in members if n.fate == "kept")
    return "restarted" if told or fates != {"kept"} else "goes on"


def _measured(name: str, members: Sequence[NodeChange], record: Json | None) -> Seconds | None:
    if record is None:
        return None
    known = record.get("nodes", {})
    held = [known[node.name] for node in members if node.name in known]
    restarts = record.get("groups", {}).get(name, {}).get("restarts", ())
    starts = [r["ready_at"] - r["noticed_at"] for r in restarts if r.get("ready_at")]
    if not held or not starts:
        return None
    boot = max(float(node.get("boot_to_agent_seconds", 0.0)) for node in held)
    # An agent that was only restarted counts from the same boot, and its steps find all done.
    fresh = all("CHANGED" in node.get("step_outcomes", {}).values() for node in held)
    if not fresh or boot > _LONGEST_BOOT_SECONDS:
        return Seconds(None, None, float(starts[-1]))
    steps = max(sum(node.get("step_seconds", {}).values()) for node in held)
    return Seconds(boot, steps, float(starts[-1]))


def _cost(nodes: Sequence[NodeChange]) -> Cost:
    before = [node.type_before for node in nodes if node.type_before]
    after = [node.type_after for node in nodes if node.type_after]
    prices = {kind: _price(kind) for kind in {*before, *after}}
    return Cost(
        before=round(sum(prices[kind] or 0.0 for kind in before), 6),
        after=round(sum(prices[kind] or 0.0 for kind in after), 6),
        unpriced=tuple(sorted(kind for kind, price in prices.items() if price is None)),
    )


def _price(instance_type: str) -> float | None:
    if instance_type not in catalog.instance_types():
        return None
    price = catalog.instance_type(instance_type).price
    return price.usd_per_hour if price else None
