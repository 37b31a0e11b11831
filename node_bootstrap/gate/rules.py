"""The rules: what a node must have against what is seen of it. Each gives findings, or nothing.

What is unknown is a finding too. Where the unknown is the whole of the GPUs the node can't serve;
where it is one table of a tool that a later driver may write otherwise, it is told and no more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from node_bootstrap.assignment import Hardware
from node_bootstrap.facts.base import Unknown, version
from node_bootstrap.gate.observe import FABRIC_MANAGER, Observation
from node_bootstrap.gate.xids import OTHER, SWITCH, XIDS
from node_bootstrap.status import HardwareFinding as Finding

MEMORY_SHARE = 0.95
"""nvidia-smi shows a little less than EC2 states: 81559 of 81920 MiB on an H100."""
_HOT = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown")
_NEAR = ("PIX", "PXB")

Rule = Callable[[Hardware, Observation], Iterator[Finding]]


def gpu_count(wanted: Hardware, seen: Observation) -> Iterator[Finding]:
    """All GPUs answer. One that is on the bus but silent may come back with a reboot."""
    on_bus = None if isinstance(seen.bus, Unknown) else len(seen.bus.of("gpu"))
    if isinstance(seen.gpus, Unknown):
        lost = on_bus is not None and on_bus < wanted.gpu_count
        action = "ISOLATE" if lost or "No such file" in seen.gpus.unknown else "REBOOT"
        where = "" if on_bus is None else f"; on the PCI bus are {on_bus} of {wanted.gpu_count}"
        yield Finding("gpu_count", action, "", f"{seen.gpus.unknown}{where}")
        return
    have = len(seen.gpus.gpus)
    if have < wanted.gpu_count:
        action = "REBOOT" if on_bus is not None and on_bus >= wanted.gpu_count else "ISOLATE"
        said = "".join(f" ({c[:120]})" for c in seen.gpus.complaints[:1])
        what = f"{have} GPUs answer, the plan needs {wanted.gpu_count}{said}"
        yield Finding("gpu_count", action, "", what)


def gpu_type(wanted: Hardware, seen: Observation) -> Iterator[Finding]:
    """The GPUs are of the planned kind and size."""
    if isinstance(seen.gpus, Unknown):
        return
    for gpu in seen.gpus.gpus:
        words = set(re.findall(r"\w+", gpu.name.upper()))
        if not words.issuperset(wanted.gpu_name.upper().split()):
            what = f"GPU {gpu.index} is a {gpu.name}, the plan needs {wanted.gpu_name}"
            yield Finding("gpu_type", "ISOLATE", gpu.pci, what)
        elif gpu.memory_mib < MEMORY_SHARE * wanted.gpu_memory_mib:
            what = f"GPU {gpu.index} has {gpu.memory_mib} MiB, EC2 states {wanted.gpu_memory_mib}"
            yield Finding("gpu_memory", "ISOLATE", gpu.pci, what)


def driver(wanted: Hardware, seen: Observation) -> Iterator[Finding]:
    """The driver is not older than CUDA of the planned vLLM needs."""
    if isinstance(seen.gpus, Unknown) or not wanted.driver_min:
        return
    for have in sorted({gpu.driver for gpu in seen.gpus.gpus}):
        if version(have) < version(wanted.driver_min):
            what = f"NVIDIA driver {have}, the plan needs {wanted.driver_min} or later: another AMI"
            yield Finding("driver", "ISOLATE", "", what)


def report_known(wanted: Hardware, seen: Observation) -> Iterator[Finding]:
    """Errors of memory, clocks and fabric could be read."""
    del wanted
    if isinstance(seen.report, Unknown) and not isinstance(seen.gpus, Unknown):
        what = f"errors of memory and clocks are unknown: {seen.report.unknown}"
        yield Finding("report", "MONITOR", "", what)


def ecc(wanted: Hardware, seen: Observation) -> Iterator[Finding]:
    """The GPUs' memory has no errors that it could not correct."""
    del wanted
    for gpu in () if isinstance(seen.report, Unknown) else seen.report.gpus:
        have = gpu.ecc
        if have.remap_failed or have.worn_out:
            what = "memory is beyond repair: no spare row is left, or too many errors"
            yield Finding("ecc_worn_out", "ISOLATE", gpu.pci, what)
        elif have.remap_pending or have.retired_pending:
            what = "bad memory is taken out of use at the next reset"
            yield Finding("ecc_pending", "RESET", gpu.pci, what)
        elif have.uncorrected:
            what = f"{have.uncorrected} uncorrected errors of memory since the driver was loaded"
            yield Finding("ecc_uncorrected", "RESET", gpu.pci, what)
        elif have.remapped_uncorrectable:
            what = f"{have.remapped_uncorrectable} rows were remapped after uncorrected errors"
            yield Finding("ecc_remapped", "MONITOR", gpu.pci, what)
        if have.enabled is False:
            yield Finding("ecc_off", "MONITOR", gpu.pci, "ECC is switched off")


def clocks(wanted: Hardware, seen: Observation) -> Iterator[Finding]:
    """No GPU is slowed by heat or power."""
    del wanted
    for gpu in () if isinstance(seen.report, Unknown) else seen.report.gpus:
        slowed = [reason for reason in gpu.clocks.slowed if reason in _HOT]
        if slowed:
            now, most = gpu.clocks.sm_mhz, gpu.clocks.sm_max_mhz
            what = f"slowed ({', '.join(slowed)}): {now} of {most} MHz at {gpu.temperature_c} C"
            yield Finding("clocks", "MONITOR", gpu.pci, what)


def fabric(wanted: Hardware, seen: Observation) -> Iterator[Finding]:
    """NVSwitch types: the fabric manager runs, is of the driver's version, all are registered."""
    if seen.fabric_unit is None:
        return
    if isinstance(seen.fabric_unit, Unknown):
        what = f"can't be asked for: {seen.fabric_unit.unknown}"
        yield Finding("fabric_manager", "ISOLATE", FABRIC_MANAGER, what)
    elif seen.fabric_unit.load == "not-found":
        yield Finding("fabric_manager", "ISOLATE", FABRIC_MANAGER, "not installed: another AMI")
    elif not seen.fabric_unit.runs:
        what = f"is {seen.fabric_unit.active} ({seen.fabric_unit.result}): CUDA gives error 802"
        yield Finding("fabric_manager", "RESET", FABRIC_MANAGER, what)
    yield from _fabric_version(seen)
    for gpu in () if isinstance(seen.report, Unknown) else seen.report.gpus:
        state, status = gpu.fabric.state, gpu.fabric.status
        if state is not None and (state != "Completed" or status not in ("Success", None)):
            what = f"not registered with the NVLink fabric: {state}, {status or 'no status'}"
            yield Finding("fabric_state", "RESET", FABRIC_MANAGER, what)
    del wanted


def _fabric_version(seen: Observation) -> Iterator[Finding]:
    have = seen.fabric_version
    if have is None or isinstance(seen.gpus, Unknown):
        return
    if isinstance(have, Unknown):
        what = f"its version is unknown, it has to be the driver's: {have.unknown}"
        yield Finding("fabric_manager", "MONITOR", FABRIC_MANAGER, what)
        return
    drivers = {gpu.driver for gpu in seen.gpus.gpus}
    if have.version not in drivers:
        what = f"of version {have.version}, the driver of {', '.join(sorted(drivers))}: another AMI"
        yield Finding("fabric_manager", "ISOLATE", FABRIC_MANAGER, what)


def nvlink(wanted: Hardware, seen: Observation) -> Iterator[Finding]:
    """Every GPU reaches every other over NVLink, over all of its links."""
    if not wanted.nvlink or wanted.gpu_count < 2:
        return
    if isinstance(seen.topology, Unknown):
        yield Finding("nvlink", "MONITOR", "", f"paths between GPUs: {seen.topology.unknown}")
    elif seen.topology is not None and seen.topology.without_nvlink:
        pairs = seen.topology.without_nvlink
        what = f"{len(pairs)} pairs of GPUs without NVLink, the first {pairs[0]}"
        yield Finding("nvlink", "REBOOT", "", what)
    if isinstance(seen.links, Unknown):
        what = f"whether all NVLinks are active is unknown: {seen.links.unknown}"
        yield Finding("nvlink", "MONITOR", "", what)
    elif seen.links is not None:
        for links in seen.links.gpus:
            if links.inactive:
                what = f"GPU {links.gpu}: {links.inactive} NVLinks are inactive"
                yield Finding("nvlink", "REBOOT", "", what)


def xids(wanted: Hardware, seen: Observation) -> Iterator[Finding]:
    """What the driver wrote into the kernel's log of this boot; the last of each kind and GPU.

    What was there before the GPUs were reset is dealt with.
    """
    del wanted
    if isinstance(seen.xids, Unknown):
        yield Finding("xid", "MONITOR", "", f"Xids are unknown: {seen.xids.unknown}")
        return
    fresh = (e for e in seen.xids.events if e.at_seconds is None or e.at_seconds > seen.reset_at)
    last = {(event.pci, event.code): event for event in fresh}
    for event in last.values():
        action, meaning = SWITCH if event.switch else XIDS.get(event.code, OTHER)
        kind = "SXid" if event.switch else "Xid"
        yield Finding("xid", action, event.pci, f"{kind} {event.code}: {meaning}")


def efa(wanted: Hardware, seen: Observation) -> Iterator[Finding]:
    """All EFA devices are on the bus. They are attached at launch alone: one can't be added."""
    if not wanted.efa_devices:
        return
    if isinstance(seen.bus, Unknown):
        yield Finding("efa", "MONITOR", "", f"the PCI bus is unknown: {seen.bus.unknown}")
        return
    have = len(seen.bus.of("efa"))
    if have < wanted.efa_devices:
        what = f"{have} EFA devices on the PCI bus, the plan needs {wanted.efa_devices}"
        yield Finding("efa", "ISOLATE", "", what)


def nic_distance(wanted: Hardware, seen: Observation) -> Iterator[Finding]:
    """Each GPU has a network card under its own PCIe switch, where there are enough cards."""
    if wanted.efa_devices < wanted.gpu_count:
        return
    if seen.topology is None:
        return
    if isinstance(seen.topology, Unknown) or not seen.topology.near:
        shown = "nvidia-smi topo -m has no network cards"
        why = seen.topology.unknown if isinstance(seen.topology, Unknown) else shown
        what = f"whether each GPU has a network card under its PCIe switch is unknown: {why}"
        yield Finding("nic_distance", "MONITOR", "", what)
        return
    for gpu in seen.topology.gpus:
        best = {near.distance for near in seen.topology.near if near.gpu == gpu}
        if not best.intersection(_NEAR):
            what = f"{gpu} has no network card under its own PCIe switch: its traffic takes the CPU"
            yield Finding("nic_distance", "MONITOR", "", what)


def diagnosis(wanted: Hardware, seen: Observation) -> Iterator[Finding]:
    """DCGM found nothing, where it was asked."""
    if seen.diagnosis is None:
        return
    if isinstance(seen.diagnosis, Unknown):
        what = f"DCGM level {wanted.dcgm_level} did not run: {seen.diagnosis.unknown}"
        yield Finding("dcgm", "MONITOR", "", what)
        return
    for failure in seen.diagnosis.failures:
        action = "ISOLATE" if failure.result.lower() == "fail" else "MONITOR"
        device = "" if failure.gpu is None else f"GPU {failure.gpu}"
        yield Finding("dcgm", action, device, f"{failure.test}: {failure.warning}"[:200])


RULES: tuple[Rule, ...] = (
    gpu_count,
    gpu_type,
    driver,
    report_known,
    ecc,
    clocks,
    fabric,
    nvlink,
    xids,
    efa,
    nic_distance,
    diagnosis,
)


def judge(wanted: Hardware, seen: Observation) -> tuple[Finding, ...]:
    """All findings, in the order of the rules."""
    return tuple(finding for rule in RULES for finding in rule(wanted, seen))
