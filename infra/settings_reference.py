"""The reference of all settings, as Markdown, made from the settings themselves.

`python -m infra.settings_reference > docs/settings.md`
"""

from __future__ import annotations

import json
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from infra.faults import NAMESPACE
from infra.settings import Settings

HEAD = f"""# Settings

Every key of a stack's file, below `{NAMESPACE}:`. Keys that are vLLM's are spelled as vLLM spells
them. `moe plan` takes them all; what the program can't build yet it refuses with a sentence that
says so. Made by `python -m infra.settings_reference`.
"""


def markdown() -> str:
    """The whole page."""
    return HEAD + "".join(_section(Settings, ""))


def _section(model: type[BaseModel], at: str) -> Iterator[str]:
    title = f"`{NAMESPACE}:{at}`" if at else "The stack"
    said = (model.__doc__ or "").strip().partition("\n")[0].replace("|", "\\|")
    yield f"\n## {title}\n\n{said}\n\n| key | kind | default | what it is |\n|---|---|---|---|\n"
    nested: list[tuple[type[BaseModel], str]] = []
    for name, field in model.model_fields.items():
        inner = _models(field.annotation)
        many = typing.get_origin(field.annotation) is dict and bool(inner)
        path = f"{at}.{name}" if at else name
        nested += [(section, f"{path}.NAME" if many else path) for section in inner]
        what = field.description or (inner[0].__doc__ or "").strip().partition("\n")[0]
        kind = "section" if inner else _kind(field.annotation)
        yield f"| `{name}` | {kind} | {_default(field)} | {what.replace('|', chr(92) + '|')} |\n"
    for section, path in nested:
        yield from _section(section, path)


def _models(kind: Any) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for part in typing.get_args(kind) for model in _models(part)]


def _kind(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _kind(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        parts = [_kind(part) for part in typing.get_args(kind) if part is not type(None)]
        return " or ".join(dict.fromkeys(parts))
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(kind))
    if origin in (tuple, dict):
        return {tuple: "list", dict: "map"}[origin]
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names.get(kind, "value")


def _default(field: Any) -> str:
    if field.default_factory is not None:
        return "`{}`"
    if field.default is PydanticUndefined:
        return "needed"
    if field.default is None or isinstance(field.default, BaseModel):
        return ""
    return f"`{json.dumps(field.default)}`"


if __name__ == "__main__":
    sys.stdout.write(markdown())
