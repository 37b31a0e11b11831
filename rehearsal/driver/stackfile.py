"""Stack files: Pulumi.<stack>.yaml as the driver reads it, and the copy that Pulumi writes to.

Pulumi keeps a stack's encryption salt in its stack file. The rehearsal's salt belongs to the
rehearsal's own passphrase and ends with it, so it must not get into the checkout's file: Pulumi is
given a copy (`--config-file`), made anew from the checkout's before each run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rehearsal.driver.errors import DriverError

SECRETS_KEYS = ("encryptionsalt", "secretsprovider", "encryptedkey")
PROJECT = "moe-serving"
DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True)
class StackFile:
    """One stack's file in a checkout."""

    path: Path
    content: Mapping[str, Any]

    @property
    def region(self) -> str:
        """The AWS region that the file names, or the default one."""
        return str((self.content.get("config") or {}).get("aws:region") or DEFAULT_REGION)

    @property
    def model(self) -> Mapping[str, Any]:
        """The `model` setting; empty where the file has none (the program says what is wrong)."""
        found = (self.content.get("config") or {}).get(f"{PROJECT}:model")
        return found if isinstance(found, dict) else {}


def read(checkout: Path, stack: str) -> StackFile:
    """Read a stack's file.

    Raises:
        DriverError: there is none of this name, it isn't YAML, or it holds encrypted values.
    """
    path = checkout / f"Pulumi.{stack}.yaml"
    if not path.exists():
        names = ", ".join(stacks_of(checkout)) or "none"
        raise DriverError(
            f"There is no stack file {path.name} in {checkout}. Stacks here: {names}. "
            f"Name one of them (make up STACK=<name>), or write {path.name}."
        )
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as problem:
        raise DriverError(f"{path.name} isn't YAML: {problem}") from problem
    if not isinstance(content, dict):
        raise DriverError(f"{path.name} must hold keys and values, with `config:` at its top.")
    encrypted = sorted(_encrypted(content.get("config") or {}, ""))
    if encrypted:
        raise DriverError(
            f"{path.name} holds values encrypted with another passphrase: {', '.join(encrypted)}. "
            "The rehearsal has its own passphrase and can't read them. Copy the file to a stack "
            "name of its own without these values, and rehearse that."
        )
    return StackFile(path, content)


def exists(checkout: Path, stack: str) -> bool:
    """Tell whether a checkout has a file for a stack."""
    return (checkout / f"Pulumi.{stack}.yaml").exists()


def stacks_of(checkout: Path) -> list[str]:
    """Return the names of the stacks that a checkout has files for."""
    return sorted(
        path.name.removeprefix("Pulumi.").removesuffix(".yaml")
        for path in checkout.glob("Pulumi.*.yaml")
    )


def write_copy(source: StackFile, copy: Path) -> None:
    """Write what Pulumi is to read: the checkout's settings with the salt that the copy has.

    Args:
        source: the checkout's file.
        copy: the rehearsal's; need not exist.
    """
    earlier: dict[str, Any] = {}
    if copy.exists():
        earlier = yaml.safe_load(copy.read_text()) or {}
    content = {name: value for name, value in source.content.items() if name not in SECRETS_KEYS}
    content |= {name: earlier[name] for name in SECRETS_KEYS if name in earlier}
    # Secrets that were set for the rehearsal are encrypted with its own passphrase: only here.
    secrets = {k: v for k, v in (earlier.get("config") or {}).items() if list(_encrypted(v, k))}
    if secrets:
        content["config"] = {**(content.get("config") or {}), **secrets}
    copy.parent.mkdir(parents=True, exist_ok=True)
    draft = copy.with_suffix(".draft")
    draft.write_text(yaml.safe_dump(content, sort_keys=False))
    draft.replace(copy)


def _encrypted(value: object, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        if set(value) == {"secure"}:
            yield path
            return
        for name, item in value.items():
            yield from _encrypted(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _encrypted(item, f"{path}[{index}]")
