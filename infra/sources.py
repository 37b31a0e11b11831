"""Where settings come from: a stack's file, any settings file, or the config of a Pulumi run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from infra import settings
from infra.faults import NAMESPACE, SettingsError

PROJECT = Path(__file__).resolve().parent.parent
"""The checkout: the folder of Pulumi.yaml, which relative paths of a stack's file start from."""


@dataclass(frozen=True)
class Source:
    """Settings as they were given: raw values, and where in AWS the stack is.

    region, profile: `aws:region` and `aws:profile`, if they are there.
    base: folder that relative paths start from.
    """

    values: Mapping[str, Any]
    region: str | None
    base: Path
    profile: str | None = None


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key given twice is a fault: YAML itself would keep the last one unseen."""


def _unique_keys(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    faults: list[str] = []
    first: dict[Any, int] = {}
    for key_node, _ in node.value:
        key, line = loader.construct_object(key_node), key_node.start_mark.line + 1
        if key in first:
            faults.append(
                f"{key_node.start_mark.name}:{line}: {key!r} is given twice (first in line "
                f"{first[key]}); give each name once"
            )
        first.setdefault(key, line)
    if faults:
        raise SettingsError(faults, "SETTINGS_DUPLICATE_KEY")
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_keys)


TOKEN_KEY = "huggingface_token"  # noqa: S105 - the name of one
STACKS_VARIABLE = "MOE_SERVING_STACKS"
"""Environment: the folder of the stack files, where that isn't the checkout itself."""


def stacks(project: Path = PROJECT) -> Path:
    """Folder of the stack files."""
    return Path(os.environ.get(STACKS_VARIABLE) or project)


def stack_file(stack: str, project: Path = PROJECT) -> Path:
    """Path of a stack's file; it may not exist."""
    return stacks(project) / f"Pulumi.{stack}.yaml"


def read_file(path: Path, base: Path | None = None) -> Source:
    """Read a stack's file (`config:`) or a settings file (the keys alone).

    Args:
        path: the file.
        base: folder that relative paths start from; the file's own by default.

    Raises:
        SettingsError: no such file, no YAML, a key given twice, a key of another project.
    """
    try:
        with path.open("rb") as file:
            data = yaml.load(file, _StrictLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise SettingsError(
            [f"{path}: can't be read: {error.strerror}"], "SETTINGS_UNREADABLE"
        ) from error
    except yaml.YAMLError as error:
        raise SettingsError([f"{path}: is not YAML: {error}"], "SETTINGS_UNREADABLE") from error
    if not isinstance(data, dict):
        raise SettingsError(
            [f"{path}: wanted a map of settings, got {type(data).__name__}"], "SETTINGS_UNREADABLE"
        )
    config = data.get("config", data)
    base = base or path.resolve().parent
    return Source(_ours(config), config.get("aws:region"), base, config.get("aws:profile"))


def _ours(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of this project, without its name; other providers' keys (`aws:…`) are left out."""
    prefix = f"{NAMESPACE}:"
    ours = {
        key.removeprefix(prefix): value
        for key, value in config.items()
        if key.startswith(prefix) or ":" not in key
    }
    if isinstance(ours.get(TOKEN_KEY), str):
        remedy = f"`pulumi config set --secret {NAMESPACE}:{TOKEN_KEY}` keeps it encrypted"
        raise SettingsError([f"{NAMESPACE}:{TOKEN_KEY}: is written in plain text; {remedy}"])
    return _without_token(ours)


def _without_token(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings say that there is a token; the token itself goes nowhere near them."""
    given = values.get(TOKEN_KEY)
    shown = {TOKEN_KEY: bool(given)} if isinstance(given, str | dict) else {}
    return {**values, **shown}


def from_pulumi(config: Mapping[str, str], stack: str, project: Path = PROJECT) -> Source:
    """Settings of a Pulumi run.

    Args:
        config: the engine's map, `project:key` -> text; objects are JSON.
        stack: its file, where there is one, is read too: the engine's own reader keeps the last
            of two equal keys and says nothing.
        project: folder of Pulumi.yaml.
    """
    if stack_file(stack, project).exists():
        read_file(stack_file(stack, project), project)
    prefix = f"{NAMESPACE}:"
    values = {k.removeprefix(prefix): _value(v) for k, v in config.items() if k.startswith(prefix)}
    ours = _without_token(values)
    return Source(ours, config.get("aws:region"), project, config.get("aws:profile"))


def _value(text: str) -> Any:
    """The engine hands objects, numbers and booleans as JSON, texts as they are."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def load(source: Source, stack: str) -> settings.Settings:
    """Judge what was read; SettingsError has all faults."""
    return settings.from_mapping(source.values, stack)


def require_region(source: Source, environment: Mapping[str, str]) -> str:
    """The AWS region: `aws:region` of the stack, or the environment's; SettingsError if neither."""
    region = source.region or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if not region:
        raise SettingsError(["aws:region: missing; set it in the stack's file or as AWS_REGION"])
    return region
