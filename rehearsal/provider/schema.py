"""Which properties each resource has, read from the classes of the installed pulumi-aws wheel."""

from __future__ import annotations

import importlib
import inspect
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

if typing.TYPE_CHECKING:
    from pathlib import Path

Fields = Mapping[str, Any]
"""Property name -> the fields of what it holds, None where that is a plain value or a free map."""

PROVIDER = "pulumi:providers:aws"
"""The token of the provider's own settings."""

_FIXED_PARAMETERS = ("resource_name", "opts")


@dataclass(frozen=True)
class Shape:
    """The properties of one resource type, in the engine's spelling."""

    inputs: Fields
    outputs: frozenset[str]


def load(path: Path) -> dict[str, Shape]:
    """The shapes that `dump` wrote: a millisecond, where the wheel's classes take a second."""
    return {
        token: Shape(shape["inputs"], frozenset(shape["outputs"]))
        for token, shape in json.loads(path.read_text()).items()
    }


def dump(tokens: Sequence[str], path: Path) -> None:
    """Write the shapes of these resource types and of the provider itself, for `load`."""
    shapes: dict[str, Any] = {
        token: {"inputs": shape.inputs, "outputs": sorted(shape.outputs)}
        for token, shape in ((token, of(token)) for token in tokens)
    }
    settings = dict.fromkeys(sorted(of(PROVIDER).inputs))
    shapes[PROVIDER] = {"inputs": settings, "outputs": []}
    path.write_text(json.dumps(shapes))


def of(token: str) -> Shape:
    """The shape of a type token such as `aws:ec2/vpc:Vpc`.

    Raises:
        LookupError: the wheel has no class of that token.
    """
    if token == PROVIDER:
        return Shape(dict.fromkeys(_provider_settings()), frozenset())
    # pulumi's own readers of its classes; they are what the SDK serialises with
    from pulumi._types import resource_py_to_pulumi_names  # noqa: PLC0415 - slow, not at start

    resource = _resource_class(token)
    names = resource_py_to_pulumi_names(resource)
    init = resource._internal_init  # noqa: SLF001 - the Args class may be hidden by a namesake
    hints = _hints(init)
    inputs = {
        names[parameter]: _fields_of_hint(hints[parameter], ())
        for parameter in list(inspect.signature(init).parameters)[1:]
        if parameter not in _FIXED_PARAMETERS and parameter in names
    }
    return Shape(inputs, frozenset(names.values()))


def unknown_properties(inputs: Mapping[str, Any], fields: Fields, at: str = "") -> list[str]:
    """Paths of properties that the resource does not have, misspelt most likely."""
    wrong = []
    for key, value in inputs.items():
        if key not in fields:
            wrong.append(f"{at}{key}")
        elif fields[key] is not None:
            wrong += _unknown_inside(value, fields[key], f"{at}{key}")
    return wrong


def _unknown_inside(value: Any, fields: Fields, at: str) -> list[str]:
    if isinstance(value, list):
        return [
            path
            for index, item in enumerate(value)
            for path in _unknown_inside(item, fields, f"{at}[{index}]")
        ]
    return unknown_properties(value, fields, f"{at}.") if isinstance(value, dict) else []


def _provider_settings() -> list[str]:
    provider: type = importlib.import_module("pulumi_aws.provider").Provider
    init: Any = vars(provider)["_internal_init"]
    names = list(inspect.signature(init).parameters)[1:]
    return [_camel(name) for name in names if name not in (*_FIXED_PARAMETERS, "__props__")]


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _resource_class(token: str) -> type:
    _, module, name = token.split(":")
    folder, file = module.split("/")
    for package in (f"pulumi_aws.{folder}", f"pulumi_aws.{file}"):
        try:
            return getattr(importlib.import_module(package), name)
        except (ImportError, AttributeError):
            continue
    msg = f"pulumi_aws has no class for {token}"
    raise LookupError(msg)


def _fields_of_hint(hint: Any, seen: tuple[type, ...]) -> Fields | None:
    for cls in _classes_in(hint):
        if not cls.__module__.endswith("_inputs") or cls.__name__.endswith("Dict"):
            continue
        if cls in seen:
            return None
        from pulumi._types import input_type_py_to_pulumi_names  # noqa: PLC0415 - as above

        names = input_type_py_to_pulumi_names(cls)
        init: Any = vars(cls)["__init__"]
        hints = _hints(init)
        return {
            name: _fields_of_hint(hints[parameter], (*seen, cls))
            for parameter, name in names.items()
            if parameter in hints
        }
    return None


def _hints(init: Any) -> dict[str, Any]:
    from pulumi import Output  # noqa: PLC0415 - as above; `Input` names it as a string

    return typing.get_type_hints(init, init.__globals__, {"Output": Output, "T": Any})


def _classes_in(hint: Any) -> Iterator[type]:
    if isinstance(hint, type):
        yield hint
    for part in typing.get_args(hint):
        yield from _classes_in(part)
