"""What load balancers, target groups and listeners share."""

from __future__ import annotations

from typing import Any

from rehearsal.provider import errors, shapes
from rehearsal.provider.resource import Call, Change, Inputs, Resource, State
from rehearsal.provider.tags import difference

NAME_LENGTH = 32


class Balancing(Resource):
    """A resource of ELB: ids are ARNs, tags take a call of their own."""

    def sync_tags(self, call: Call, rid: str, change: Change) -> None:
        """Bring the tags to what the update asks for."""
        if not change.any("tagsAll"):
            return
        wanted, gone = difference(change)
        client = call.client("elbv2")
        if gone:
            client.remove_tags(ResourceArns=[rid], TagKeys=gone)
        if wanted:
            client.add_tags(ResourceArns=[rid], Tags=shapes.tag_list(wanted))

    def tags_of(self, call: Call, rid: str) -> dict[str, str]:
        """The tags that AWS has."""
        found = call.client("elbv2").describe_tags(ResourceArns=[rid])["TagDescriptions"]
        return shapes.tag_map(found[0]["Tags"]) if found else {}


def find(call: Call, operation: str, field: str, **query: Any) -> dict[str, Any] | None:
    """The one thing that a describe call answers, None where there is none."""
    try:
        found = getattr(call.client("elbv2"), operation)(**query)[field]
    except Exception as error:
        if errors.gone(error):
            return None
        raise
    return found[0] if found else None


def attribute_list(fields: dict[str, str], inputs: Inputs, now: dict[str, str]) -> list[dict]:
    """Attributes that differ from what the program wants; the API takes all as text."""
    wanted = {api: str(inputs[key]).lower() if isinstance(inputs[key], bool) else str(inputs[key])
              for key, api in fields.items() if key in inputs and api in now}  # fmt: skip
    return [{"Key": key, "Value": value} for key, value in wanted.items() if now[key] != value]


def typed(fields: dict[str, str], now: dict[str, str]) -> State:
    """Attributes as properties: the API answers all as text."""
    types: dict[str, Any] = {"true": True, "false": False}
    found = {key: now[api] for key, api in fields.items() if api in now}
    return {k: types.get(v, int(v) if v.isdigit() else v) for k, v in found.items()}
