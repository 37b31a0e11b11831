"""What changed between two property bags, as the engine shows it. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from rehearsal.provider.wire import UNKNOWN, is_asset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULTS = "__defaults"
"""Input that lists the inputs that the provider filled in; the Terraform bridge's own name."""


class Kind(Enum):
    """What happened to a property."""

    ADD = "add"
    DELETE = "delete"
    UPDATE = "update"


@dataclass(frozen=True)
class Rules:
    """How properties of one resource compare.

    Attributes:
        computed: optional inputs that AWS fills in: leaving one out is no change.
        sets: lists whose order means nothing.
        policies: strings that hold JSON: spacing and key order mean nothing.
    """

    computed: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    policies: frozenset[str] = frozenset()


def changes(old: Mapping[str, Any], new: Mapping[str, Any], rules: Rules) -> dict[str, Kind]:
    """Paths (`tags.Name`, `networkInterfaces[0].deviceIndex`) and what happened to each."""
    found: dict[str, Kind] = {}
    for key in sorted(old.keys() | new.keys()):
        if key == DEFAULTS or (key not in new and key in rules.computed):
            continue
        before, after = old.get(key), new.get(key)
        if not same(key, before, after, rules):
            found.update(_walk(key, before, after))
    return found


def same(key: str, before: Any, after: Any, rules: Rules) -> bool:
    """Whether AWS would take both values for the same."""
    if before == after or (before in _NOTHING and after in _NOTHING):
        return True
    if is_asset(before) and is_asset(after):
        return before.get("hash") == after.get("hash")
    if key in rules.policies and isinstance(before, str) and isinstance(after, str):
        return same_json(before, after)
    if key in rules.sets and isinstance(before, list) and isinstance(after, list):
        return _sorted(before) == _sorted(after)
    return False


def same_json(before: str, after: str) -> bool:
    """Whether two policy documents say the same: one item equals a list of it, in any order."""
    if UNKNOWN in (before, after):
        return False
    try:
        return _policy(json.loads(before)) == _policy(json.loads(after))
    except ValueError:
        return False


def top(path: str) -> str:
    """The input that a path begins with."""
    return path.split(".", 1)[0].split("[", 1)[0]


_NOTHING: tuple[Any, ...] = (None, [], {}, "")


def _walk(path: str, before: Any, after: Any) -> Iterator[tuple[str, Kind]]:
    if before == after:
        return
    if before is None:
        yield path, Kind.ADD
    elif after is None:
        yield path, Kind.DELETE
    elif isinstance(before, dict) and isinstance(after, dict) and not is_asset(after):
        for key in sorted(before.keys() | after.keys()):
            inner = f"{path}.{key}" if key.isidentifier() else f'{path}["{key}"]'
            yield from _walk(inner, before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list):
        for index in range(max(len(before), len(after))):
            one = before[index] if index < len(before) else None
            other = after[index] if index < len(after) else None
            yield from _walk(f"{path}[{index}]", one, other)
    else:
        yield path, Kind.UPDATE


def _sorted(items: list[Any]) -> list[str]:
    return sorted(json.dumps(item, sort_keys=True) for item in items)


def _policy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _policy(item) for key, item in value.items()}
    if isinstance(value, list):
        items = [_policy(item) for item in value]
        return (
            items[0]
            if len(items) == 1
            else sorted(items, key=lambda x: json.dumps(x, sort_keys=True))
        )
    return value
