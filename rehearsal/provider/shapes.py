"""Properties to API parameters and back, led by botocore's own model of the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

Renames = Mapping[str, str]
"""Property -> API field, where it isn't just the property with a capital first letter."""

Lists = Mapping[str, str]
"""Property that is a list of strings -> the field of the structures that the API has there."""


class NoSuchFieldError(Exception):
    """A property was given for which the API has no field."""


def to_api(
    value: Any, shape: Shape, renames: Renames | None = None, lists: Lists | None = None
) -> Any:
    """API parameters of a property value.

    Numbers and booleans that arrive as strings get the type of the API; a map becomes a list of
    tags where the API has one; what is None is left out.

    Raises:
        NoSuchFieldError: the API has no field for a property.
    """
    renames, lists = renames or {}, lists or {}
    if isinstance(shape, StructureShape):
        return _structure(value, shape, renames, lists)
    if isinstance(shape, ListShape):
        member = shape.member
        if (
            isinstance(value, dict)
            and isinstance(member, StructureShape)
            and "Key" in member.members
        ):
            return tag_list(value)
        return [to_api(item, member, renames, lists) for item in value]
    if isinstance(shape, MapShape):
        return {key: str(item) for key, item in value.items()}
    return _scalar(value, shape.type_name)


def from_api(value: Any, renames: Renames | None = None, lists: Lists | None = None) -> Any:
    """Properties of an API answer; the reverse of `to_api`."""
    back = {api: name for name, api in (renames or {}).items()}
    return _from_api(value, back, lists or {})


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as most APIs take them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tag_map(tags: list[Any] | None) -> dict[str, str]:
    """The tags of an API answer, without those that AWS sets itself."""
    return {t["Key"]: t["Value"] for t in tags or [] if not t["Key"].startswith("aws:")}


def _structure(value: Any, shape: StructureShape, renames: Renames, lists: Lists) -> Any:
    result: dict[str, Any] = {}
    for name, item in value.items():
        if item is None:
            continue
        field = renames.get(name) or name[:1].upper() + name[1:]
        member = shape.members.get(field)
        if member is None:
            msg = f"the API's {shape.name} has no field for the property {name!r}"
            raise NoSuchFieldError(msg)
        if name in lists and isinstance(member, ListShape):
            result[field] = [{lists[name]: text} for text in item]
        else:
            result[field] = to_api(item, member, renames, lists)
    return result


def _scalar(value: Any, kind: str) -> Any:
    if kind == "boolean" and isinstance(value, str):
        return value.lower() == "true"
    if kind in ("integer", "long"):
        return int(value)
    if kind == "string":
        return str(value)
    return value


def _from_api(value: Any, back: Mapping[str, str], lists: Lists) -> Any:
    if isinstance(value, list):
        if value and all(
            isinstance(item, dict) and item.keys() == {"Key", "Value"} for item in value
        ):
            return tag_map(value)
        return [_from_api(item, back, lists) for item in value]
    if not isinstance(value, dict):
        return value
    result = {}
    for field, item in value.items():
        name = back.get(field) or field[:1].lower() + field[1:]
        if name in lists and isinstance(item, list):
            result[name] = [entry[lists[name]] for entry in item]
        else:
            result[name] = _from_api(item, back, lists)
    return result
