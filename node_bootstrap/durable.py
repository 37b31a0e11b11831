"""Files that a power cut leaves whole: the old one or the new one, never half of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from node_bootstrap import jsondata

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")


def save(path: Path, value: object, *, mode: int = 0o644) -> None:
    """Write a dataclass as JSON, atomically and durably."""
    write(path, jsondata.to_json(value).encode(), mode=mode)


def write(path: Path, content: bytes, *, mode: int = 0o644, group: int | None = None) -> None:
    """Replace a file atomically and durably, with this mode and group from its first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        if group is not None:
            os.fchown(file.fileno(), -1, group)
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path, kind: type[T]) -> T | None:
    """Read what `save` wrote; None when it is missing or of another version."""
    try:
        return jsondata.from_json(kind, path.read_bytes())
    except (FileNotFoundError, jsondata.ContractError):
        return None
