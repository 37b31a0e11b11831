"""The model's folder: what files it has, and what its config.json says."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.faults import NAMESPACE, SettingsError
from node_bootstrap.assignment import WeightFile


@dataclass(frozen=True)
class ModelFolder:
    """A model on this machine's disk."""

    folder: Path
    files: tuple[WeightFile, ...]
    config: dict[str, Any]


def read(source: str, base: Path) -> ModelFolder:
    """Read a model's folder; its files are hashed, so this takes a second per GB or so.

    Args:
        source: `model.source` of the settings.
        base: what a relative path starts from.

    Raises:
        SettingsError: the source is of a kind that isn't built yet, or not a model's folder.
    """
    key = f"{NAMESPACE}:model.source"
    if source == "hf" or "://" in source:
        kind = "Hugging Face" if source == "hf" else f"{source.partition('://')[0]}://"
        raise SettingsError([f"{key}: {source!r}: {kind} is not built yet; give a local folder"])
    folder = (base / source).resolve()
    if not folder.is_dir():
        raise SettingsError([f"{key}: {source!r}: there is no folder {folder}"])
    config = _config(folder, key)
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and not _hidden(p, folder))
    return ModelFolder(folder, tuple(_file(p, folder) for p in paths), config)


def _config(folder: Path, key: str) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise SettingsError([f"{key}: {folder} has no readable config.json: no model"]) from error
    except ValueError as error:
        raise SettingsError([f"{key}: {path} is not JSON: {error}"]) from error
    if not isinstance(config, dict):
        raise SettingsError([f"{key}: {path} holds no JSON object"])
    return config


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _file(path: Path, folder: Path) -> WeightFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return WeightFile(path.relative_to(folder).as_posix(), path.stat().st_size, digest)
