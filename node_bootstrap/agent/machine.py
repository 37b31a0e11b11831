"""The machine under a node as Prometheus metrics: processors, memory, disks, network, RDMA.

Names are those of Prometheus' node exporter, so that its dashboards and alerts fit; processors are
summed. RDMA counters (EFA's rdma_read_bytes, retrans_bytes and others) have the kernel's names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

CPU_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
MEMORY = ("MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "Shmem")
FILE_SYSTEMS = frozenset({"ext4", "xfs", "btrfs", "overlay"})
SECTOR_BYTES = 512
"""What /sys/block counts in, whatever the disk's own."""
NO_DISKS = ("loop", "ram", "zram")
COUNTER_FOLDERS = ("counters", "hw_counters")
KIB = 1024
NET_COLUMNS = {
    "receive_bytes": 0,
    "receive_errs": 2,
    "receive_drop": 3,
    "transmit_bytes": 8,
    "transmit_errs": 10,
    "transmit_drop": 11,
}
"""Numbers of a line of /proc/net/dev."""


class MachineCollector(Collector):
    """Reads the kernel's files at each scrape; what a machine lacks is left out."""

    def __init__(self, root: Path = Path("/"), ticks_per_second: int | None = None) -> None:
        """`root`: where proc and sys lie. `ticks_per_second`: of the kernel's CPU times."""
        self._root = root
        self._ticks = ticks_per_second or os.sysconf("SC_CLK_TCK")

    def collect(self) -> Iterator[Metric]:
        """All metrics of the machine."""
        yield from cpu(_text(self._root / "proc/stat"), self._ticks)
        yield from load(_text(self._root / "proc/loadavg"))
        yield from memory(_text(self._root / "proc/meminfo"))
        yield from network(_text(self._root / "proc/net/dev"))
        yield from _file_systems(self._root)
        yield from _disks(self._root / "sys/block")
        yield from _rdma(self._root / "sys/class/infiniband")


def cpu(stat: str, ticks_per_second: int) -> Iterator[Metric]:
    """From /proc/stat: seconds in each mode, over all processors."""
    family = CounterMetricFamily("node_cpu_seconds", "Of all processors", labels=["mode"])
    for line in stat.splitlines():
        name, *counts = line.split() or [""]
        if name == "cpu":
            for mode, ticks in zip(CPU_MODES, counts, strict=False):
                family.add_metric([mode], int(ticks) / ticks_per_second)
    yield family
    count = sum(1 for line in stat.splitlines() if line[:3] == "cpu" and line[3:4].isdigit())
    yield GaugeMetricFamily("node_cpus", "Processors", value=count)


def load(loadavg: str) -> Iterator[Metric]:
    """From /proc/loadavg."""
    if words := loadavg.split():
        yield GaugeMetricFamily("node_load1", "Load over a minute", value=float(words[0]))


def memory(meminfo: str) -> Iterator[Metric]:
    """From /proc/meminfo, in bytes."""
    found = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    for name in MEMORY:
        if name in found:
            bytes_ = int(found[name].split()[0]) * KIB
            yield GaugeMetricFamily(f"node_memory_{name}_bytes", f"{name} of meminfo", value=bytes_)


def network(dev: str) -> Iterator[Metric]:
    """From /proc/net/dev, without loopback."""
    rows = {
        name.strip(): numbers.split()
        for name, colon, numbers in (line.partition(":") for line in dev.splitlines())
        if colon and name.strip() != "lo"
    }
    for what, column in NET_COLUMNS.items():
        family = CounterMetricFamily(f"node_network_{what}", "Of interfaces", labels=["device"])
        for device, numbers in rows.items():
            family.add_metric([device], int(numbers[column]))
        yield family


def _file_systems(root: Path) -> Iterator[Metric]:
    labels = ["device", "fstype", "mountpoint"]
    size = GaugeMetricFamily("node_filesystem_size_bytes", "Of mounted disks", labels=labels)
    free = GaugeMetricFamily("node_filesystem_avail_bytes", "For plain users", labels=labels)
    seen: set[str] = set()
    for line in _text(root / "proc/self/mounts").splitlines():
        device, place, kind, *_ = line.split()
        if kind not in FILE_SYSTEMS or device in seen:
            continue  # further mounts of a disk say the same
        try:
            found = os.statvfs(place)
        except OSError:
            continue
        seen.add(device)
        size.add_metric([device, kind, place], found.f_blocks * found.f_frsize)
        free.add_metric([device, kind, place], found.f_bavail * found.f_frsize)
    yield size
    yield free


def _disks(block: Path) -> Iterator[Metric]:
    read = CounterMetricFamily("node_disk_read_bytes", "Read from disks", labels=["device"])
    written = CounterMetricFamily("node_disk_written_bytes", "Written", labels=["device"])
    for stat in sorted(block.glob("*/stat")):
        name, numbers = stat.parent.name, _text(stat).split()
        if numbers and not name.startswith(NO_DISKS):
            read.add_metric([name], int(numbers[2]) * SECTOR_BYTES)
            written.add_metric([name], int(numbers[6]) * SECTOR_BYTES)
    yield read
    yield written


def _rdma(infiniband: Path) -> Iterator[Metric]:
    families: dict[str, CounterMetricFamily] = {}
    for path in sorted(p for f in COUNTER_FOLDERS for p in infiniband.glob(f"*/ports/*/{f}/*")):
        value = _text(path).strip()
        if not value.isdecimal():
            continue  # some ports don't hold every counter: reading it is an error
        name = path.name.removesuffix("_total")
        family = families.setdefault(
            name,
            CounterMetricFamily(
                f"node_infiniband_{name}", "RDMA counter", labels=["device", "port"]
            ),
        )
        port = path.parent.parent
        family.add_metric([port.parent.parent.name, port.name], int(value))
    yield from families.values()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
