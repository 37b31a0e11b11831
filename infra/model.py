"""The model: its files where they are on this machine, and what its config.json says."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra import catalog
from infra.faults import NAMESPACE, SettingsError
from node_bootstrap.assignment import WeightFile

if TYPE_CHECKING:
    from pathlib import Path

    from infra.settings import ModelSettings


@dataclass(frozen=True)
class ModelFolder:
    """A model on this machine's disk."""

    folder: Path
    files: tuple[WeightFile, ...]
    config: dict[str, Any]


@dataclass(frozen=True)
class ModelFacts:
    """What the plan needs to know of a model.

    folder: None where its files are elsewhere (s3://…, Hugging Face). shape: None where no memory
    rule covers its config.json; `faults` says why.
    """

    config: dict[str, Any]
    shape: catalog.ModelShape | None
    faults: tuple[str, ...]
    folder: ModelFolder | None

    @property
    def files(self) -> tuple[WeightFile, ...]:
        """Its files; empty where they are elsewhere."""
        return self.folder.files if self.folder else ()

    def require_folder(self) -> ModelFolder:
        """Its folder on this machine; SettingsError where there is none."""
        if self.folder is None:
            raise SettingsError(
                [f"{NAMESPACE}:model.source: its files are not on this machine"], "SETTINGS_MODEL"
            )
        return self.folder


def facts(model: ModelSettings, base: Path, config: Path | None = None) -> ModelFacts:
    """Everything that can be known of a model without a network.

    Args:
        model: the `model` section of the settings.
        base: what relative paths of the settings start from.
        config: a config.json that takes the place of `model.config`.

    Raises:
        SettingsError: no such folder or file, no JSON; or the files are elsewhere, the catalog
            doesn't know the model and no config.json is given.
    """
    elsewhere = model.source == "hf" or "://" in model.source
    if elsewhere and model.source != "hf" and not model.source.startswith("s3://"):
        wanted = "a folder, s3://bucket/prefix, or hf"
        raise SettingsError(
            [f"{NAMESPACE}:model.source: {model.source!r}: wanted {wanted}"], "SETTINGS_MODEL"
        )
    folder = None if elsewhere else read(model.source, base)
    path = config or (base / model.config if model.config else None)
    given = _json(path, f"{NAMESPACE}:model.config") if path else folder and folder.config
    if given is None:
        return _known(model.name)
    try:
        return ModelFacts(given, catalog.shape(given, model.name), (), folder)
    except catalog.ModelConfigError as error:
        return ModelFacts(given, None, error.faults, folder)


def _known(name: str) -> ModelFacts:
    try:
        shape = catalog.model(name)
    except catalog.UnknownNameError as error:
        remedy = "give its config.json as model.config"
        raise SettingsError(
            [f"{NAMESPACE}:model.config: missing; {error} {remedy}"], "SETTINGS_MODEL"
        ) from error
    return ModelFacts({"architectures": [shape.architecture]}, shape, (), None)


def read(source: str, base: Path) -> ModelFolder:
    """Read a model's folder; its files are hashed, so this takes a second per GB or so.

    Args:
        source: `model.source` of the settings.
        base: what a relative path starts from.

    Raises:
        SettingsError: not a model's folder.
    """
    key = f"{NAMESPACE}:model.source"
    folder = (base / source).resolve()
    if not folder.is_dir():
        raise SettingsError([f"{key}: {source!r}: there is no folder {folder}"], "SETTINGS_MODEL")
    config = _config(folder, key)
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and not _hidden(p, folder))
    return ModelFolder(folder, tuple(_file(p, folder) for p in paths), config)


def _config(folder: Path, key: str) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise SettingsError(
            [f"{key}: {folder} has no readable config.json: no model"], "SETTINGS_MODEL"
        )
    return _json(folder / "config.json", key)


def _json(path: Path, key: str) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise SettingsError(
            [f"{key}: {path} can't be read: {error.strerror}"], "SETTINGS_MODEL"
        ) from error
    except ValueError as error:
        raise SettingsError([f"{key}: {path} is not JSON: {error}"], "SETTINGS_MODEL") from error
    if not isinstance(config, dict):
        raise SettingsError([f"{key}: {path} holds no JSON object"], "SETTINGS_MODEL")
    return config


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _file(path: Path, folder: Path) -> WeightFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return WeightFile(path.relative_to(folder).as_posix(), path.stat().st_size, digest)
