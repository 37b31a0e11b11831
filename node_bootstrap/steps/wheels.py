"""Wheels that take minutes to build: from the stack's bucket, or built and then put there."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from node_bootstrap import durable, runner
from node_bootstrap.assignment import WHEELS_PREFIX, Software
from node_bootstrap.places import Places
from node_bootstrap.status import NodePhase
from node_bootstrap.steps import installers
from node_bootstrap.steps.base import Check, Frequency, StepError
from node_bootstrap.steps.installer import Installer, install, render


@dataclass(frozen=True)
class Shelf:
    """Where wheels are kept.

    load: an object, None when it is missing; StepError when its digest is not the noted one.
    save: writes one where there is none; False where somebody else was quicker.
    """

    load: Callable[[str], bytes | None]
    save: Callable[[str, bytes], bool]


def key(name: str, software: Software, gpu_name: str, cuda_major: int, script: str) -> str:
    """S3 key of a library's wheels: another release, CUDA, torch, GPU or recipe is another key.

    script: as rendered; the digest of it stands for versions, commits and the way of building.
    """
    parts = {c.name: c.version for c in software.components}
    arch = installers.ARCHITECTURES.get(gpu_name, "9.0a")
    digest = hashlib.sha256(script.encode()).hexdigest()[:12]
    built_for = f"vllm{parts.get('vLLM', '')}-torch{parts.get('torch', '')}-cu{cuda_major}-sm{arch}"
    text = f"{name}-{built_for}-{digest}"
    return f"{WHEELS_PREFIX}{text.replace(' ', '-')}.tar"


def pack(folder: Path) -> bytes:
    """All wheels of a folder as one tar: same wheels, same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(folder.glob("*.whl")):
            entry = tarfile.TarInfo(path.name)
            entry.size = path.stat().st_size
            with path.open("rb") as content:
                archive.addfile(entry, content)
    return buffer.getvalue()


def unpack(content: bytes, folder: Path) -> tuple[Path, ...]:
    """The wheels of a tar; anything but plain `.whl` files is refused.

    Raises:
        StepError: it is no such tar.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            members = archive.getmembers()
            strange = [m.name for m in members if not _plain(m)]
            if strange or not members:
                raise StepError(f"the stored wheels hold what is no wheel: {strange[:3]}")
            archive.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise StepError(f"the stored wheels are broken: {error}") from error
    return tuple(folder / m.name for m in members)


def _plain(member: tarfile.TarInfo) -> bool:
    return member.isfile() and member.name.endswith(".whl") and "/" not in member.name


@dataclass(frozen=True)
class Wheels:
    """Brings the wheels of one node. recipes: component -> what builds it."""

    software: Software
    gpu_name: str
    cuda_major: int
    places: Places
    shelf: Shelf
    recipes: Mapping[str, Installer]
    folder: Path

    @property
    def keys(self) -> tuple[str, ...]:
        """S3 keys, in the order of the recipes."""
        return tuple(self._key(recipe) for recipe in self.recipes.values())

    def bring(self, deadline: float) -> None:
        """Get or build each, and install them over whatever has their names.

        Raises:
            StepError: what is stored is broken.
            CommandError: a build or pip failed.
        """
        for recipe in self.recipes.values():
            shutil.rmtree(self.folder, ignore_errors=True)
            stored = self.shelf.load(self._key(recipe)) or self._build(recipe, deadline)
            if stored is not None:
                shutil.rmtree(self.folder, ignore_errors=True)
                unpack(stored, self.folder)
            names = [str(path) for path in sorted(self.folder.glob("*.whl"))]
            options = ["--no-input", "--disable-pip-version-check", "--no-deps"]
            runner.run(
                [
                    self.software.python,
                    "-m",
                    "pip",
                    "install",
                    *options,
                    "--force-reinstall",
                    *names,
                ],
                timeout_seconds=300,
            )

    def _key(self, recipe: Installer) -> str:
        return key(recipe.name, self.software, self.gpu_name, self.cuda_major, render(recipe))

    def _build(self, recipe: Installer, deadline: float) -> bytes | None:
        """Build into the folder; what another node stored meanwhile goes before this one's.

        All nodes of a stack then run the same bytes.
        """
        where = self._key(recipe)
        install(recipe, self.places.installers, deadline)
        return None if self.shelf.save(where, pack(self.folder)) else self.shelf.load(where)


@dataclass(frozen=True)
class WheelsStep:
    """The wheels in the environment of an image; that they work is seen on a node with GPUs.

    record: file that remembers what was installed.
    """

    wheels: Wheels
    record: Path
    name: str = "wheels"
    phase: NodePhase = "software"
    frequency: Frequency = "change"
    timeout_seconds: float = 3600
    needs: tuple[str, ...] = ("software",)

    @property
    def key(self) -> str:
        """Environment and wheels."""
        return " ".join((self.wheels.software.python, *self.wheels.keys))

    def check(self) -> Check:
        """Compare with what was installed last."""
        if not self.record.exists() or self.record.read_text() != self.key:
            return Check(done=False, detail="not installed: " + ", ".join(self.wheels.keys))
        return Check(done=True, detail=", ".join(self.wheels.keys))

    def apply(self, deadline: float) -> None:
        """Get or build, and install."""
        self.wheels.bring(deadline)
        durable.write(self.record, self.key.encode())
