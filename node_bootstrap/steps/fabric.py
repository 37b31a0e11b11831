"""What carries tokens and KV blocks between nodes: EFA's kernel module, GDRCopy's module."""

from __future__ import annotations

from dataclasses import dataclass

from node_bootstrap.assignment import Component
from node_bootstrap.facts import efa, efa_installer, kernel_module
from node_bootstrap.facts.base import Unknown, version
from node_bootstrap.facts.read import Run, read
from node_bootstrap.facts.read import run as run_fact
from node_bootstrap.places import Places
from node_bootstrap.status import NodePhase
from node_bootstrap.steps import installers
from node_bootstrap.steps.base import Check, Frequency
from node_bootstrap.steps.installer import install


@dataclass(frozen=True)
class EfaStep:
    """EFA's installer, not older than planned, and as many devices as the plan gave the node.

    builder: no device is here, this node only becomes the image of one that has some.
    """

    part: Component
    devices: int
    places: Places
    run: Run = run_fact
    builder: bool = False
    name: str = "efa"
    phase: NodePhase = "software"
    frequency: Frequency = "boot"
    timeout_seconds: float = 1800
    needs: tuple[str, ...] = ("host",)

    @property
    def key(self) -> str:
        """Version and devices."""
        return f"{self.part.version} {self.devices}"

    def check(self) -> Check:
        """The module, the installer's own note of its version, and what libfabric lists."""
        module = read(kernel_module.command("efa"), kernel_module.parse, self.run)
        if isinstance(module, Unknown):
            return Check(done=False, detail=f"efa: {module.unknown}")
        installed = self._installed()
        # The image's may be newer: it moves on by itself, and going back helps nobody.
        if version(installed) < version(self.part.version):
            has = installed or "none"
            return Check(done=False, detail=f"EFA installer {has}, needed {self.part.version}")
        if self.builder:
            return Check(done=True, detail=f"installer {installed}, module {module.version}")
        found = read(efa.COMMAND, efa.parse, self.run)
        if isinstance(found, Unknown):
            return Check(done=False, detail=f"EFA: {found.unknown}")
        if len(found.domains) != self.devices:
            detail = f"fi_info lists {len(found.domains)} EFA devices, planned are {self.devices}"
            return Check(done=False, detail=detail)
        detail = f"installer {installed}, module {module.version}, {self.devices} devices"
        return Check(done=True, detail=detail)

    def apply(self, deadline: float) -> None:
        """Run AWS' installer."""
        work = self.places.state / "build"
        script = installers.efa(self.part, work, kernel_module=True)
        install(script, self.places.installers, deadline)

    def _installed(self) -> str:
        note = self.places.root / efa_installer.NOTE
        found = efa_installer.parse(note.read_text() if note.is_file() else "")
        return "" if isinstance(found, Unknown) else found.version


@dataclass(frozen=True)
class GdrcopyStep:
    """The gdrdrv module, loaded, not older than planned.

    builder: without a GPU it can't be loaded, it is only put into the image.
    """

    part: Component
    places: Places
    run: Run = run_fact
    builder: bool = False
    name: str = "gdrcopy"
    phase: NodePhase = "software"
    frequency: Frequency = "boot"
    timeout_seconds: float = 1800
    needs: tuple[str, ...] = ("host",)

    @property
    def key(self) -> str:
        """The version."""
        return self.part.version

    def check(self) -> Check:
        """The module's version and its device."""
        module = read(kernel_module.command("gdrdrv"), kernel_module.parse, self.run)
        if isinstance(module, Unknown):
            return Check(done=False, detail=f"gdrdrv: {module.unknown}")
        # The module states major and minor alone: 2.5 is the one of GDRCopy 2.5.2.
        if version(module.version)[:2] < version(self.part.version)[:2]:
            detail = f"gdrdrv {module.version}, needed {self.part.version}"
            return Check(done=False, detail=detail)
        if self.builder:
            return Check(done=True, detail=f"gdrdrv {module.version} is installed")
        if not (self.places.root / "dev/gdrdrv").exists():
            return Check(done=False, detail="gdrdrv is not loaded: /dev/gdrdrv is missing")
        return Check(done=True, detail=f"gdrdrv {module.version} is loaded")

    def apply(self, deadline: float) -> None:
        """Build and load it."""
        work = self.places.state / "build"
        script = installers.gdrcopy(self.part, work, load=not self.builder)
        install(script, self.places.installers, deadline)
