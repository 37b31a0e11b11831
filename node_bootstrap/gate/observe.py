"""All that the gate sees of a GPU node, read at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from node_bootstrap.assignment import Hardware
from node_bootstrap.facts import (
    dcgm,
    fabric_manager,
    gpu_report,
    gpu_topology,
    gpus,
    nvlink,
    pci,
    unit,
    xid,
)
from node_bootstrap.facts.base import Unknown
from node_bootstrap.facts.read import Run, read

FABRIC_MANAGER = "nvidia-fabricmanager.service"


@dataclass(frozen=True)
class Observation:
    """Facts, each with its own unknown. None: not asked for on this node.

    reset_at: when the GPUs were reset in this boot, in seconds since it; 0 if they were not.
    """

    bus: pci.Pci | Unknown
    gpus: gpus.Gpus | Unknown
    report: gpu_report.Report | Unknown
    xids: xid.Xids | Unknown
    topology: gpu_topology.Topology | Unknown | None = None
    links: nvlink.NvLink | Unknown | None = None
    fabric_unit: unit.Unit | Unknown | None = None
    fabric_version: fabric_manager.FabricManager | Unknown | None = None
    diagnosis: dcgm.Diagnosis | Unknown | None = None
    reset_at: float = 0.0


def observe(wanted: Hardware, run: Run, reset_at: float = 0.0) -> Observation:
    """Read what the rules need. Commands run side by side: nvidia-smi takes seconds on 8 GPUs.

    DCGM comes last and alone, since it uses the GPUs.
    """
    switched = wanted.nvlink and wanted.gpu_count > 1
    with ThreadPoolExecutor(max_workers=8) as pool:
        bus = pool.submit(read, pci.COMMAND, pci.parse, run)
        shown = pool.submit(read, gpus.COMMAND, gpus.parse, run)
        report = pool.submit(read, gpu_report.COMMAND, gpu_report.parse, run)
        xids = pool.submit(read, xid.COMMAND, xid.parse, run)
        topology = pool.submit(read, gpu_topology.COMMAND, gpu_topology.parse, run)
        links = pool.submit(read, nvlink.COMMAND, nvlink.parse, run) if switched else None
        manager = (
            pool.submit(read, unit.command(FABRIC_MANAGER), unit.parse, run) if switched else None
        )
        version = (
            pool.submit(read, fabric_manager.COMMAND, fabric_manager.parse, run)
            if switched
            else None
        )
    return Observation(
        bus=bus.result(),
        gpus=shown.result(),
        report=report.result(),
        xids=xids.result(),
        topology=topology.result(),
        links=links.result() if links else None,
        fabric_unit=manager.result() if manager else None,
        fabric_version=version.result() if version else None,
        diagnosis=_diagnose(wanted.dcgm_level, run),
        reset_at=reset_at,
    )


def _diagnose(level: int, run: Run) -> dcgm.Diagnosis | Unknown | None:
    if not level:
        return None
    return read(("dcgmi", "diag", "-r", str(level), "-j"), dcgm.parse, run)
