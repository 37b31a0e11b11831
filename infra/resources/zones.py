"""Which Availability Zone a stack lives in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class NoZoneError(ValueError):
    """No zone offers what the stack asks for; says which zones offer which type."""


def choose(instance_types: Iterable[str], offerings: Sequence[tuple[str, str]]) -> str:
    """The first zone, by name, that offers every instance type of the stack.

    Args:
        instance_types: what the stack asks for.
        offerings: (instance type, zone), as DescribeInstanceTypeOfferings answers.

    Raises:
        NoZoneError: no zone offers them all.
    """
    wanted = sorted(set(instance_types))
    zones = {kind: {z for k, z in offerings if k == kind} for kind in wanted}
    common = sorted(set.intersection(*zones.values()))
    if common:
        return common[0]
    seen = "; ".join(f"{kind}: {', '.join(sorted(zones[kind])) or 'none'}" for kind in wanted)
    raise NoZoneError(
        f"No Availability Zone of this region offers {' and '.join(wanted)} ({seen}). The nodes of "
        "a stack share one zone: take another instance type or another aws:region."
    )
