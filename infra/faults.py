"""Faults of settings as sentences: the key, what was given, what is allowed."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

NAMESPACE = "moe-serving"


class SettingsError(ValueError):
    """Settings can't be used; `faults` has one sentence for each reason."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        lines = "\n".join(f"  - {fault}" for fault in faults)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"The stack's settings have {count}:\n{lines}")


def readable(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Each fault that pydantic found as one sentence, such as `…nodes: 0 is not allowed; …`."""
    errors = error.errors()
    # A key of several kinds (a number or `auto`) has one error for each, a level further down.
    several = {e["loc"][:-1] for e in errors if str(e["loc"][-1]).startswith("literal[")}
    at_key: dict[tuple[Any, ...], list[Any]] = {}
    for fault in errors:
        loc = tuple(fault["loc"])
        at_key.setdefault(loc[:-1] if loc[:-1] in several else loc, []).append(fault)
    return [f"{NAMESPACE}:{_path(at)}: {_sentence(at, f, model)}" for at, f in at_key.items()]


def _path(loc: Sequence[int | str]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _sentence(at: Sequence[int | str], faults: Sequence[Any], model: type[BaseModel]) -> str:
    first = faults[0]
    given = json.dumps(first["input"], default=str)
    given = given if len(given) <= 60 else given[:57] + "…"
    if first["type"] == "extra_forbidden":
        return _unknown_key(at, model)
    if first["type"] == "missing":
        return "missing; it has no default"
    return f"{given} is not allowed; {' or '.join(_allowed(fault) for fault in faults)}"


def _allowed(fault: Any) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    wanted = {
        "greater_than_equal": f"at least {context.get('ge')}",
        "less_than_equal": f"at most {context.get('le')}",
        "greater_than": f"more than {context.get('gt')}",
        "float_type": "wanted a number",
        "literal_error": f"allowed: {context.get('expected')}",
        "string_pattern_mismatch": f"wanted a text like {context.get('pattern')}",
        "string_too_long": f"at most {context.get('max_length')} characters",
        "string_too_short": "it may not be empty",
        "too_short": f"at least {context.get('min_length')} entry",
        "int_type": "wanted a whole number",
        "int_from_float": "wanted a whole number",
        "bool_type": "wanted true or false",
        "string_type": "wanted a text",
        "tuple_type": "wanted a list",
        "dict_type": "wanted a map of names",
        "model_type": "wanted a map of keys",
    }
    if kind == "value_error":
        return f"wanted {context['error']}"
    return str(wanted.get(kind) or fault["msg"])


def _unknown_key(loc: Sequence[int | str], model: type[BaseModel]) -> str:
    known = sorted(_fields_at(model, loc[:-1]))
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"unknown key.{hint} Known here: {', '.join(known)}"


def _fields_at(kind: Any, loc: Sequence[int | str]) -> list[str]:
    """Names of the fields of the model that a path leads to."""
    for part in loc:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
        else:
            kind = typing.get_args(kind)[-1]
        if typing.get_origin(kind) in (typing.Union, types.UnionType):
            kind = typing.get_args(kind)[0]
    return list(kind.model_fields)
