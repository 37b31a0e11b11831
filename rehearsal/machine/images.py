"""Images made from instances: copies of their disks, kept apart from whatever they came from.

An image is a stack of layers over the base image that every instance boots from. Its own layer is
a copy of the disk; further layers are those of the image that the instance itself was made from.
Layers are never written again, so instances and images share them; one that nobody uses any more
is removed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

from rehearsal.machine.instance import folders
from rehearsal.machine.interface import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rehearsal.machine.interface import ImageState
    from rehearsal.paths import Home

LAYER = "layer"


@dataclass(frozen=True)
class Record:
    """What is known of an image. layers: folders, the topmost first. source: the instance.

    kept: whether the account still has it; else it is here only for those that use its layer.
    """

    source: str
    layers: tuple[str, ...]
    state: Literal["pending", "available", "failed"] = "pending"
    kept: bool = True


@dataclass(frozen=True)
class Images:
    """The images of a rehearsal. Survives every process: all that is known lies in its folder."""

    home: Home

    def begin(self, image_id: str, instance_id: str) -> None:
        """Note an image that is to be made; `copy` makes it.

        Raises:
            MachineError: there is no such instance.
        """
        below = self._layers_of(instance_id)
        own = str(self._folder(image_id) / LAYER)
        self._write(image_id, Record(instance_id, (own, *below)))

    def copy(self, image_id: str) -> None:
        """Copy the disk, however far an earlier attempt got. Takes as long as the disk is large."""
        record = self._read(image_id)
        if record is None or record.state != "pending":
            return
        folder = self._folder(image_id)
        fresh = folder / f"{LAYER}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        disk = self.home.instances / record.source / "disk" / "upper"
        # With everything that overlayfs notes in extended attributes; where the file system can,
        # without copying a block.
        command = ["cp", "--archive", "--reflink=auto", str(disk), str(fresh)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(fresh, ignore_errors=True)
        else:
            fresh.rename(folder / LAYER)
        kept = self._read(image_id) or record  # it may have been forgotten meanwhile
        self._write(image_id, replace(kept, state="failed" if done.returncode else "available"))
        self.purge()
        if done.returncode:
            raise MachineError(f"The disk of {record.source} can't be copied: {done.stderr[-500:]}")

    def state(self, image_id: str) -> ImageState:
        """How far an image is."""
        record = self._read(image_id)
        return record.state if record is not None and record.kept else "unknown"

    def pending(self) -> dict[str, str]:
        """Images that are not finished -> the instances whose disks they copy."""
        found = ((path.name, self._read(path.name)) for path in self._all())
        return {n: record.source for n, record in found if record and record.state == "pending"}

    def layers(self, image_id: str) -> tuple[str, ...]:
        """Layers to boot from, the topmost first; none for what is no image of ours.

        Raises:
            MachineError: the image is not whole.
        """
        record = self._read(image_id)
        if record is None:
            return ()
        if record.state != "available":
            raise MachineError(f"The image {image_id} is {record.state} on this machine.")
        return record.layers

    def forget(self, image_id: str) -> None:
        """The account has it no more: remove it, now or once nobody uses its layer."""
        record = self._read(image_id)
        if record is not None:
            self._write(image_id, replace(record, kept=False))
            self.purge()

    def purge(self) -> None:
        """Remove the images that are forgotten and in nobody's use."""
        while unused := [path for path in self._all() if self._is_unused(path)]:
            for path in unused:
                (path / "image.json").unlink(missing_ok=True)
                shutil.rmtree(path)

    def _is_unused(self, path: Path) -> bool:
        record = self._read(path.name)
        if record is None or record.kept or record.state == "pending":
            return False
        return str(path / LAYER) not in set(self._used(besides=path.name))

    def _used(self, besides: str) -> Iterator[str]:
        for folder in folders(self.home):
            spec = folder.spec()
            yield from spec.layers if spec is not None else ()
        for path in self._all():
            record = self._read(path.name)
            if record is not None and path.name != besides:
                yield from record.layers

    def _layers_of(self, instance_id: str) -> tuple[str, ...]:
        for folder in folders(self.home):
            spec = folder.spec()
            if folder.instance_id == instance_id and spec is not None:
                return spec.layers
        raise MachineError(f"There is no instance {instance_id} on this machine.")

    def _all(self) -> list[Path]:
        return sorted(self.home.images.iterdir()) if self.home.images.is_dir() else []

    def _folder(self, image_id: str) -> Path:
        return self.home.images / image_id

    def _read(self, image_id: str) -> Record | None:
        try:
            data = json.loads((self._folder(image_id) / "image.json").read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Record(**{**data, "layers": tuple(data["layers"])})

    def _write(self, image_id: str, record: Record) -> None:
        folder = self._folder(image_id)
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / "image.json.new"
        fresh.write_text(json.dumps(asdict(record)))
        fresh.replace(folder / "image.json")
