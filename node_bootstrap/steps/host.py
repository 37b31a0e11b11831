"""The host of a GPU node: driver, fabric manager, kernel settings, module options, quiet apt."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from node_bootstrap import durable
from node_bootstrap.assignment import Hardware, Software
from node_bootstrap.facts import (
    clock,
    fabric_manager,
    huge_pages,
    kernel,
    nvidia_driver,
    nvidia_params,
    unit,
)
from node_bootstrap.facts.base import Unknown, version
from node_bootstrap.facts.read import Run, read
from node_bootstrap.facts.read import run as run_fact
from node_bootstrap.places import Places
from node_bootstrap.status import NodePhase
from node_bootstrap.steps import installers
from node_bootstrap.steps.base import Check, Frequency, StepError
from node_bootstrap.steps.installer import install

SYSCTL = """# EFA's shared-memory transport and NCCL read memory of a sibling process.
kernel.yama.ptrace_scope = 0
# Ranks map weights and buffers in many pieces.
vm.max_map_count = 1048576
# 16 data-parallel ranks with hundreds of connections each.
net.core.somaxconn = 4096
"""
EFA_HUGE_PAGES = 5128
"""Of 2 MiB: as many as EFA's package sets apart."""
EFA_SYSCTL = f"""# EFA's provider takes its buffers from huge pages; a fork may fail without.
vm.nr_hugepages = {EFA_HUGE_PAGES}
"""
TIME_SOURCE = """# The Amazon Time Sync Service: of the host, no firewall is in between.
server 169.254.169.123 prefer iburst minpoll 4 maxpoll 4
"""
CLOCK_SECONDS = 0.5
"""So far off a clock may be: timelines and logs of nodes are read side by side."""
LIMITS = """# RDMA registers memory: locked pages must not be counted.
*    - memlock unlimited
root - memlock unlimited
*    - nofile 1048576
root - nofile 1048576
"""
OPTIONS = """# DeepEP: the GPU writes doorbells and maps peer memory by itself.
options nvidia NVreg_EnableStreamMemOPs=1 NVreg_RegistryDwords="PeerMappingOverride=1;"
"""
KERNEL_OF_DMA_BUF = "5.12"
"""From here on EFA reads and writes GPU memory by DMA-BUF."""
_UPGRADES = ("apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service")
_GPU_INITIATED = (installers.DEEPEP, installers.UCCL, installers.PPLX)


@dataclass(frozen=True)
class HostStep:
    """Makes the host as GPUs and EFA want it; one reboot when module options changed.

    boot_id: of this boot: options that a reboot did not bring are no reason for another one.
    builder: no GPU is here, so the driver is not loaded: what only a GPU shows is left to the node
        that boots from this one's image.
    """

    hardware: Hardware
    software: Software
    places: Places
    boot_id: str
    run: Run = run_fact
    builder: bool = False
    name: str = "host"
    phase: NodePhase = "hardware"
    frequency: Frequency = "boot"
    timeout_seconds: float = 1800
    needs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Digest of what the host must have."""
        text = repr((self.hardware.driver_min, self._files(), self.software.components))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def check(self) -> Check:
        """Compare; what only a newer image or a reboot can mend is told the same way."""
        if self.builder:
            wrong = [*self._quiet(), *self._initramfs()]
            return Check(not wrong, "; ".join(wrong) or "settings as planned, no GPU to look at")
        wrong = [*self._floors(), *self._settings(), *self._options()]
        driver = read(nvidia_driver.COMMAND, nvidia_driver.parse, self.run)
        has = driver.version if isinstance(driver, nvidia_driver.Driver) else "unknown"
        return Check(not wrong, "; ".join(wrong) or f"driver {has}, settings as planned")

    def apply(self, deadline: float) -> None:
        """Write files, install, restart units; reboot when the module's options changed.

        Raises:
            StepError: the driver is below the floor, or the node reboots.
        """
        floors = [] if self.builder else [*self._floors()]
        if floors:
            raise StepError(
                f"{'; '.join(floors)}: choose a newer image (moe-serving:ami); it brings the driver"
            )
        new_options = False
        for path, text in self._files():
            if not _holds(path, text):
                if text == OPTIONS:
                    self._taken.unlink(missing_ok=True)
                    new_options = True
                durable.write(path, text.encode())
        # A run that was killed may have left the file, and an initramfs without it.
        left = self._initramfs() if self.builder else self._options()
        script = installers.host(
            self._path("sysctl"),
            fabric_manager=self._has(installers.FABRIC_MANAGER),
            new_options=new_options or any(left),
            start=not self.builder,
        )
        install(script, self.places.installers, deadline)
        if self._needs_options():
            durable.write(self._taken, OPTIONS.encode())
        if not self.builder and [*self._options()]:
            self._reboot()

    def _reboot(self) -> None:
        record = self.places.state / "host-reboot"
        before = record.read_text() if record.exists() else ""
        if before and before != self.boot_id:
            raise StepError(
                "the NVIDIA module still has other options after a reboot: another file of "
                "/etc/modprobe.d or the initramfs sets them. Compare /proc/driver/nvidia/params "
                f"with {self._path('modprobe')}"
            )
        durable.write(record, self.boot_id.encode())
        self.run(("systemctl", "reboot"))
        raise StepError("the NVIDIA module has new options: the node reboots for them")

    def _floors(self) -> Iterator[str]:
        driver = read(nvidia_driver.COMMAND, nvidia_driver.parse, self.run)
        if isinstance(driver, Unknown):
            yield f"no NVIDIA driver: {driver.unknown}"
        elif version(driver.version) < version(self.hardware.driver_min or "0"):
            yield f"NVIDIA driver {driver.version}, needed is {self.hardware.driver_min}"
        if self.hardware.efa_devices:
            runs = read(kernel.COMMAND, kernel.parse, self.run)
            if isinstance(runs, Unknown):
                yield runs.unknown
            elif runs.numbers < version(KERNEL_OF_DMA_BUF):
                yield f"kernel {runs.release}, EFA moves GPU memory from {KERNEL_OF_DMA_BUF} on"

    def _quiet(self) -> Iterator[str]:
        for path, text in self._files():
            if not _holds(path, text):
                yield f"{path} is not as planned"
        for name in _UPGRADES:
            found = read(unit.command(name), unit.parse, self.run)
            if isinstance(found, Unknown) or found.runs:
                yield f"{name} may upgrade packages while the node serves"

    def _settings(self) -> Iterator[str]:
        yield from self._quiet()
        persistence = read(unit.command("nvidia-persistenced"), unit.parse, self.run)
        if isinstance(persistence, Unknown) or not persistence.runs:
            yield "nvidia-persistenced does not run"
        if self._has(installers.FABRIC_MANAGER):
            yield from self._fabric()
        yield from self._clock()
        if self.hardware.efa_devices:
            yield from self._huge_pages()

    def _clock(self) -> Iterator[str]:
        found = read(clock.COMMAND, clock.parse, self.run)
        if isinstance(found, Unknown):
            yield f"clock: {found.unknown}"
        elif not found.synchronized:
            yield "the clock follows no time source"
        elif found.offset_seconds > CLOCK_SECONDS:
            yield f"the clock is {found.offset_seconds:.1f} s off {found.source}"

    def _huge_pages(self) -> Iterator[str]:
        found = read(huge_pages.COMMAND, huge_pages.parse, self.run)
        if isinstance(found, Unknown):
            yield found.unknown
        elif found.total < EFA_HUGE_PAGES:
            yield f"{found.total} huge pages are set apart, EFA takes {EFA_HUGE_PAGES}"

    def _fabric(self) -> Iterator[str]:
        driver = read(nvidia_driver.COMMAND, nvidia_driver.parse, self.run)
        fabric = read(fabric_manager.COMMAND, fabric_manager.parse, self.run)
        if isinstance(fabric, Unknown):
            yield f"fabric manager: {fabric.unknown}"
        elif isinstance(driver, nvidia_driver.Driver) and fabric.version != driver.version:
            yield f"fabric manager {fabric.version}, the driver is {driver.version}"

    def _options(self) -> Iterator[str]:
        """Of the loaded module, where a backend's kernels need them."""
        if not self._needs_options():
            return
        loaded = read(nvidia_params.COMMAND, nvidia_params.parse, self.run)
        if isinstance(loaded, Unknown):
            yield loaded.unknown
        elif not (loaded.stream_mem_ops and loaded.peer_mapping):
            yield "the NVIDIA module was loaded without EnableStreamMemOPs, PeerMappingOverride"

    @property
    def _taken(self) -> Path:
        """Says that the initramfs has the module's options."""
        return self.places.state / "host-initramfs"

    def _initramfs(self) -> Iterator[str]:
        """Of a builder, whose module is not loaded: whether its initramfs has the options."""
        if self._needs_options() and not _holds(self._taken, OPTIONS):
            yield "the initramfs was not made with the NVIDIA module's options"

    def _needs_options(self) -> bool:
        return any(self._has(name) for name in _GPU_INITIATED)

    def _has(self, name: str) -> bool:
        return installers.component(self.software, name) is not None

    def _path(self, kind: str) -> Path:
        if kind == "time":
            return self.places.root / "etc/chrony/sources.d/moe.sources"
        folder = {"sysctl": "sysctl.d", "limits": "security/limits.d", "modprobe": "modprobe.d"}
        return self.places.root / "etc" / folder[kind] / "90-moe.conf"

    def _files(self) -> tuple[tuple[Path, str], ...]:
        sysctl = SYSCTL + (EFA_SYSCTL if self.hardware.efa_devices else "")
        files = (
            (self._path("sysctl"), sysctl),
            (self._path("limits"), LIMITS),
            (self._path("time"), TIME_SOURCE),
        )
        return (*files, (self._path("modprobe"), OPTIONS)) if self._needs_options() else files


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text
