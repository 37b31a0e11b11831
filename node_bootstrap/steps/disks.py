"""Local NVMe disks: the image's volume, or one of our own over disks that are bare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from node_bootstrap.facts import block_devices, mounts
from node_bootstrap.facts.base import Unknown
from node_bootstrap.facts.read import Run, read
from node_bootstrap.facts.read import run as run_fact
from node_bootstrap.places import Places
from node_bootstrap.status import NodePhase
from node_bootstrap.steps import installers
from node_bootstrap.steps.base import Check, Frequency, StepError
from node_bootstrap.steps.installer import install

IMAGE_MOUNT = "/opt/dlami/nvme"
"""Where AWS' Deep Learning AMI mounts the volume that it makes of the local disks at each boot."""
_OWN = {"LVM2_member", f"lvm {installers.VOLUME_GROUP}-{installers.VOLUME}", "ext4"}
"""What lsblk lists on disks that carry the volume of our own, or a part of it."""
KEPT = ("models", "vllm-cache", "build")
"""Folders of the node's state that are large and can be had again."""


@dataclass(frozen=True)
class DisksStep:
    """Puts the large folders of the node on its local disks. disks: how many the plan counts on."""

    disks: int
    places: Places
    run: Run = run_fact
    name: str = "disks"
    phase: NodePhase = "hardware"
    frequency: Frequency = "boot"
    timeout_seconds: float = 900
    needs: tuple[str, ...] = ("hardware",)

    @property
    def key(self) -> str:
        """How many disks, and what goes there."""
        return f"{self.disks} {KEPT}"

    def check(self) -> Check:
        """Whether the volume is mounted, writable, and carries the folders."""
        found = self._mounts()
        volume = found.at(IMAGE_MOUNT)
        if volume is None:
            return Check(done=False, detail=f"nothing is mounted at {IMAGE_MOUNT}")
        if volume.read_only:
            return Check(done=False, detail=f"{IMAGE_MOUNT} is read-only")
        missing = [n for n in KEPT if found.at(str(self._target(n))) is None]
        if missing:
            return Check(done=False, detail=f"not on the local disks: {', '.join(missing)}")
        free = volume.free_bytes / 1e12
        return Check(done=True, detail=f"{volume.source} at {IMAGE_MOUNT}, {free:.1f} TB free")

    def apply(self, deadline: float) -> None:
        """Make the volume, or mount the one made before; then bind the folders to it.

        Raises:
            StepError: disks carry data, are missing, or the volume's file system is broken.
        """
        volume = self._mounts().at(IMAGE_MOUNT)
        if volume is not None and volume.read_only:
            raise StepError(
                f"{IMAGE_MOUNT} ({volume.source}) is read-only: the kernel found an error in it. "
                "Stop and start the instance: the local disks are then others, and empty"
            )
        if volume is None:
            script = installers.volume(self._usable(), Path(IMAGE_MOUNT))
            install(script, self.places.installers, deadline)
        found = self._mounts()
        for name in KEPT:
            target = self._target(name)
            if found.at(str(target)) is None:
                source = Path(IMAGE_MOUNT) / "moe" / name
                self.run(("mkdir", "-p", str(source), str(target)))
                self.run(("mount", "--bind", str(source), str(target)))

    def _usable(self) -> list[str]:
        """The local disks, if nothing but the volume of our own may be on them.

        Whose volume group one belongs to, only LVM tells: the script asks it.
        """
        read_disks = read(block_devices.COMMAND, block_devices.parse, self.run)
        if isinstance(read_disks, Unknown):
            raise StepError(f"the disks can't be listed: {read_disks.unknown}")
        local = [d for d in read_disks.disks if d.instance_store]
        used = [
            f"{d.name} ({', '.join(d.used or d.mounts)})"
            for d in local
            if d.mounts or {*d.used} - _OWN
        ]
        if used:
            raise StepError(
                f"nothing is mounted at {IMAGE_MOUNT}, yet local disks carry data: "
                f"{'; '.join(used)}. They are never formatted: mount the volume there, or clear "
                "them with `wipefs --all` once you know that nobody needs what is on them"
            )
        if len(local) != self.disks:
            raise StepError(
                f"{len(local)} local disks, the plan counts on {self.disks}: replace the node"
            )
        return [f"/dev/{d.name}" for d in local]

    def _mounts(self) -> mounts.Mounts:
        found = read(mounts.COMMAND, mounts.parse, self.run)
        if isinstance(found, Unknown):
            raise StepError(f"the mounts can't be listed: {found.unknown}")
        return found

    def _target(self, name: str) -> Path:
        return self.places.state / name
