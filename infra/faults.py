"""Faults of settings as sentences: the key, what was given, what is allowed."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

NAMESPACE = "moe-serving"

_NOT_BUILT: tuple[tuple[str, ...], ...] = (
    ("capacity",),
    ("ttl",),
    ("checks",),
    ("gateway",),
    ("model", "config"),
    ("model", "revision"),
    ("vllm", "image"),
    ("network", "vpc_id"),
    ("network", "subnet_id"),
    ("endpoint", "tls"),
    ("groups", "*", "allow_fallback"),
    ("groups", "*", "eplb"),
    ("groups", "*", "expert_placement_strategy"),
    ("groups", "*", "quantization"),
    ("groups", "*", "kv_cache_dtype"),
    ("groups", "*", "gpu_memory_utilization"),
)
"""Keys of the design that nothing honours yet: taking one silently would be a lie."""


class SettingsError(ValueError):
    """Settings can't be used; `faults` has one sentence for each reason."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        lines = "\n".join(f"  - {fault}" for fault in faults)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"The stack's settings have {count}:\n{lines}")


def not_built_faults(data: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """A fault for each known key that nothing honours yet, and the data without those keys."""
    rest = json.loads(json.dumps(data, default=str))
    faults = [
        f"{NAMESPACE}:{'.'.join(found)}: not built yet; leave it out"
        for pattern in _NOT_BUILT
        for found in _take(rest, pattern, ())
    ]
    return faults, rest


def _take(data: Any, pattern: tuple[str, ...], at: tuple[str, ...]) -> list[tuple[str, ...]]:
    if not isinstance(data, dict):
        return []
    head, tail = pattern[0], pattern[1:]
    keys = list(data) if head == "*" else [head] if head in data else []
    if tail:
        return [found for k in keys for found in _take(data[k], tail, (*at, k))]
    for key in keys:
        del data[key]
    return [(*at, key) for key in keys]


def readable(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Each fault that pydantic found as one sentence, such as `…nodes: 0 is not allowed; …`."""
    seen: dict[tuple[Any, ...], str] = {}
    for fault in error.errors():
        at = tuple(fault["loc"])
        seen.setdefault(at, f"{NAMESPACE}:{_path(at)}: {_sentence(fault, model)}")
    return list(seen.values())


def _path(loc: Sequence[int | str]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _sentence(fault: Any, model: type[BaseModel]) -> str:
    given = json.dumps(fault["input"], default=str)
    given = given if len(given) <= 60 else given[:57] + "…"
    if fault["type"] == "extra_forbidden":
        return _unknown_key(fault["loc"], model)
    if fault["type"] == "missing":
        return "missing; it has no default"
    return f"{given} is not allowed; {_allowed(fault)}"


def _allowed(fault: Any) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    wanted = {
        "greater_than_equal": f"at least {context.get('ge')}",
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
