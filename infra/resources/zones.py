"""Which Availability Zone a stack lives in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pulumi


class NoZoneError(ValueError):
    """No zone offers what the stack asks for; says which zones offer which type."""


def by_type(
    instance_types: Iterable[str], offerings: Iterable[tuple[str, str]]
) -> dict[str, list[str]]:
    """Instance type -> the zones that offer it, by name.

    Args:
        instance_types: what the stack asks for.
        offerings: (instance type, zone), as DescribeInstanceTypeOfferings answers.
    """
    found: dict[str, set[str]] = {kind: set() for kind in instance_types}
    for kind, zone in offerings:
        if kind in found:
            found[kind].add(zone)
    return {kind: sorted(zones) for kind, zones in found.items()}


def choose(offered: Mapping[str, Sequence[str]]) -> str:
    """The first zone, by name, that offers every instance type of the stack.

    Args:
        offered: instance type -> zones.

    Raises:
        NoZoneError: no zone offers them all.
    """
    wanted = sorted(offered)
    common = sorted(set.intersection(*(set(offered[kind]) for kind in wanted)))
    if common:
        return common[0]
    seen = "; ".join(f"{kind}: {', '.join(sorted(offered[kind])) or 'none'}" for kind in wanted)
    raise NoZoneError(
        f"No Availability Zone of this region offers {' and '.join(wanted)} ({seen}). The nodes of "
        "a stack share one zone: take another instance type or another aws:region."
    )


def chosen(offered: Mapping[str, Sequence[str]]) -> str:
    """As `choose`, with an error that Pulumi shows as its sentence alone."""
    try:
        return choose(offered)
    except NoZoneError as error:
        raise pulumi.RunError(str(error)) from error
