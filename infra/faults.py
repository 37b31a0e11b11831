"""Faults of settings as sentences: the key, what was given, what is allowed."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ValidationError

NAMESPACE = "moe-serving"

CODES: Mapping[str, tuple[str, str]] = {
    "SETTINGS_UNREADABLE": (
        "The file isn't there, can't be read, or isn't YAML with a map of settings.",
        "Give a stack's file or a settings file.",
    ),
    "SETTINGS_DUPLICATE_KEY": (
        "A key stands in one map twice; YAML would keep the last one unseen.",
        "Keep one.",
    ),
    "SETTINGS_UNKNOWN_KEY": (
        "No setting has that name at that place.",
        "Take one of the names that are listed; near ones are suggested.",
    ),
    "SETTINGS_MISSING_KEY": ("A setting without a default is missing.", "Give it."),
    "SETTINGS_WRONG_TYPE": (
        "A text where a number is wanted, a number where a list is wanted, and so on.",
        "Give the kind of value that is named.",
    ),
    "SETTINGS_NOT_A_CHOICE": ("The setting takes a few values alone.", "Take one of those."),
    "SETTINGS_OUT_OF_RANGE": ("The number is too small or too large.", "Stay within the range."),
    "SETTINGS_WRONG_FORM": ("The text has another form than is wanted.", "Follow the pattern."),
    "SETTINGS_WRONG_LENGTH": ("A text or list is empty or too long.", "Mind the limit."),
    "SETTINGS_UNKNOWN_INSTANCE_TYPE": (
        "The catalog has no such instance type, or not for what it's asked for.",
        "Take a type of the catalog.",
    ),
    "SETTINGS_UNKNOWN_RELEASE": (
        "The catalog has no such vLLM release.",
        "Take a release from 0.11.0 to 0.33.0.",
    ),
    "SETTINGS_PLANNED_FLAG": (
        "extra_args has a flag that the plan sets itself; vLLM would take the last one unseen.",
        "Use the setting of that name instead.",
    ),
    "SETTINGS_NETWORK": (
        "A network isn't one, has a size that EC2 doesn't take, or is everybody's.",
        "Give an IPv4 network such as 10.42.0.0/16.",
    ),
    "SETTINGS_DURATION": ("A duration isn't one.", "Write 90s, 30m or 4h."),
    "SETTINGS_GROUP_NAME": (
        "A group's name can't be part of a node's name.",
        "Lower-case letters, digits and dashes, up to 24 characters, no number at the end.",
    ),
    "SETTINGS_TAG": ("A tag's key is taken by AWS or by this project.", "Take another key."),
    "SETTINGS_STACK_NAME": (
        "The stack's name can't be part of a bucket's name.",
        "Lower-case letters, digits and dashes, up to 38 characters.",
    ),
    "SETTINGS_MODEL": (
        "The model's folder or config.json isn't there or can't be planned with.",
        "Give model.source, or the model's config.json as model.config.",
    ),
    "SETTINGS_INVALID": ("A value can't be used, for the reason that is given.", "As it says."),
}
"""Codes of faults, stable over releases: what is wrong, what to do."""

_TYPE_ERRORS = ("_type", "_parsing", "int_from_float")
_CODE_OF_ERROR = {
    "extra_forbidden": "SETTINGS_UNKNOWN_KEY",
    "missing": "SETTINGS_MISSING_KEY",
    "literal_error": "SETTINGS_NOT_A_CHOICE",
    "greater_than": "SETTINGS_OUT_OF_RANGE",
    "greater_than_equal": "SETTINGS_OUT_OF_RANGE",
    "less_than_equal": "SETTINGS_OUT_OF_RANGE",
    "string_pattern_mismatch": "SETTINGS_WRONG_FORM",
    "string_too_long": "SETTINGS_WRONG_LENGTH",
    "string_too_short": "SETTINGS_WRONG_LENGTH",
    "too_short": "SETTINGS_WRONG_LENGTH",
}
_CODE_OF_KEY = {
    "instance_type": "SETTINGS_UNKNOWN_INSTANCE_TYPE",
    "version": "SETTINGS_UNKNOWN_RELEASE",
    "extra_args": "SETTINGS_PLANNED_FLAG",
    "cidr": "SETTINGS_NETWORK",
    "allowed_cidrs": "SETTINGS_NETWORK",
    "ready_timeout": "SETTINGS_DURATION",
    "ttl": "SETTINGS_DURATION",
    "groups": "SETTINGS_GROUP_NAME",
    "tags": "SETTINGS_TAG",
}
"""Codes of faults that a setting's own validator finds, by the setting."""


class Fault(str):
    """One fault of the settings, a sentence, with a code that is stable over releases."""

    __slots__ = ("code",)
    code: str

    def __new__(cls, sentence: str, code: str = "SETTINGS_INVALID") -> Self:
        """A sentence that begins with the key, and its code."""
        made = super().__new__(cls, sentence)
        made.code = code
        return made


class SettingsError(ValueError):
    """Settings can't be used; `faults` has one sentence, with its code, for each reason.

    code: of the sentences that have none of their own.
    """

    def __init__(self, faults: Sequence[str], code: str = "SETTINGS_INVALID") -> None:
        self.faults = tuple(f if isinstance(f, Fault) else Fault(f, code) for f in faults)
        lines = "\n".join(f"  - {fault}" for fault in faults)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"The stack's settings have {count}:\n{lines}")


def readable(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """Each fault that pydantic found as one sentence, such as `…nodes: 0 is not allowed; …`."""
    errors = error.errors()
    # A key of several kinds (a number or `auto`) has one error for each, a level further down.
    several = {e["loc"][:-1] for e in errors if str(e["loc"][-1]).startswith("literal[")}
    at_key: dict[tuple[Any, ...], list[Any]] = {}
    for fault in errors:
        loc = tuple(fault["loc"])
        at_key.setdefault(loc[:-1] if loc[:-1] in several else loc, []).append(fault)
    return [
        Fault(f"{NAMESPACE}:{_path(at)}: {_sentence(at, found, model)}", _code(at, found[0]))
        for at, found in at_key.items()
    ]


def _code(at: Sequence[int | str], fault: Any) -> str:
    kind = str(fault["type"])
    if kind == "value_error":
        key = next((part for part in reversed(at) if isinstance(part, str)), "")
        return _CODE_OF_KEY.get(key, "SETTINGS_INVALID")
    if kind.endswith(_TYPE_ERRORS):
        return "SETTINGS_WRONG_TYPE"
    return _CODE_OF_ERROR.get(kind, "SETTINGS_INVALID")


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
