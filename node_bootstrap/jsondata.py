"""Frozen dataclasses to JSON and back, strictly: both ends of a contract see the same fields."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


class ContractError(ValueError):
    """A document does not have the form of its dataclass; lists every fault with its place."""

    def __init__(self, what: str, faults: list[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(f"{what} is not valid:\n" + "\n".join(f"  - {f}" for f in faults))


def to_json(value: Any, *, without_nulls: bool = False, without_defaults: bool = False) -> str:
    """Render a dataclass as JSON: keys sorted, so that the same value gives the same bytes.

    without_nulls: leave out its own fields that are None; those of what it holds stay.
    without_defaults: leave out all fields that hold their default, at any depth: a reader of an
        earlier version, which has no such field, then understands all that it has.
    """
    data = _without_defaults(value) if without_defaults else dataclasses.asdict(value)
    if without_nulls:
        data = {name: part for name, part in data.items() if part is not None}
    return json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def _without_defaults(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_without_defaults(part) for part in value]
    if isinstance(value, dict):
        return {key: _without_defaults(part) for key, part in value.items()}
    if not dataclasses.is_dataclass(value):
        return value
    held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    defaults = {field.name: field.default for field in dataclasses.fields(value)}
    return {name: _without_defaults(part) for name, part in held.items() if part != defaults[name]}


def from_json(kind: type[T], text: str | bytes) -> T:
    """Read a dataclass from JSON; unknown, missing and mistyped fields are a ContractError."""
    faults: list[str] = []
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ContractError(kind.__name__, [f"not JSON: {error}"]) from error
    value = _read(kind, data, "$", faults)
    if faults:
        raise ContractError(kind.__name__, faults)
    return value


def _read(kind: Any, data: Any, where: str, faults: list[str]) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if data is None else _read(_not_none(args), data, where, faults)
    if dataclasses.is_dataclass(kind):
        return _read_fields(kind, data, where, faults)
    if origin in (tuple, dict):
        return _read_container(origin, args, data, where, faults)
    return _read_scalar(kind, data, where, faults)


def _read_container(origin: Any, args: Any, data: Any, where: str, faults: list[str]) -> Any:
    if origin is tuple:
        if not isinstance(data, list):
            return _fault(faults, where, "a list", data)
        return tuple(_read(args[0], v, f"{where}[{i}]", faults) for i, v in enumerate(data))
    if not isinstance(data, dict):
        return _fault(faults, where, "an object", data)
    return {k: _read(args[1], v, f"{where}.{k}", faults) for k, v in data.items()}


def _read_scalar(kind: Any, data: Any, where: str, faults: list[str]) -> Any:
    if typing.get_origin(kind) is typing.Literal:
        allowed = typing.get_args(kind)
        wanted = f"one of {', '.join(allowed)}"
        return data if data in allowed else _fault(faults, where, wanted, data)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    return data if type(data) is kind else _fault(faults, where, kind.__name__, data)


def _not_none(args: tuple[Any, ...]) -> Any:
    return next(a for a in args if a is not type(None))


def _read_fields(kind: Any, data: Any, where: str, faults: list[str]) -> Any:
    if not isinstance(data, dict):
        return _fault(faults, where, "an object", data)
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    faults.extend(f"{where}.{name}: unknown field" for name in data.keys() - fields.keys())
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _read(hints[name], data[name], f"{where}.{name}", faults)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            faults.append(f"{where}.{name}: missing")
    return None if faults else kind(**values)


def _fault(faults: list[str], where: str, wanted: str, got: Any) -> None:
    faults.append(f"{where}: wanted {wanted}, got {type(got).__name__} {str(got)[:60]!r}")
