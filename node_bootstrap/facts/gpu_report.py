"""`nvidia-smi -q -x`: errors of memory, clocks and why they are low, state of the NVLink fabric.

One command gives all of it, and it takes seconds on eight GPUs, so it is one fact.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree as ET

from node_bootstrap.facts.base import Unknown, first_line, number, stated
from node_bootstrap.facts.gpus import pci_address

COMMAND = ("nvidia-smi", "-q", "-x")
_REASONS = ("clocks_event_reasons", "clocks_throttle_reasons")
"""Drivers before 535 wrote `throttle`."""


@dataclass(frozen=True)
class Ecc:
    """Errors of memory. Counts are None where the GPU states none (ECC off, older boards).

    uncorrected: since the driver was loaded. aggregate_uncorrected: in the board's life.
    remap_pending: rows are taken out of use at the next reset. remap_failed: no spare row is
    left, the board has to go. retired_pending: the same for boards that retire pages.
    worn_out: the driver says that the board is beyond repair or over its threshold of SRAM errors.
    """

    enabled: bool | None
    uncorrected: int | None
    aggregate_uncorrected: int | None
    remapped_uncorrectable: int | None
    remap_pending: bool | None
    remap_failed: bool | None
    retired_pending: bool | None
    worn_out: bool | None


@dataclass(frozen=True)
class Clocks:
    """MHz now and at most; `slowed`: active reasons in the driver's words, idle left out."""

    sm_mhz: int | None
    sm_max_mhz: int | None
    slowed: tuple[str, ...]


@dataclass(frozen=True)
class Fabric:
    """Registration with the NVLink fabric: `Completed` and `Success` when all is well."""

    state: str | None
    status: str | None


@dataclass(frozen=True)
class GpuReport:
    """What one GPU says of itself."""

    pci: str
    name: str
    persistence: bool | None
    temperature_c: int | None
    ecc: Ecc
    clocks: Clocks
    fabric: Fabric


@dataclass(frozen=True)
class Report:
    """Driver and CUDA version, and each GPU by PCI address."""

    driver: str
    cuda: str | None
    gpus: tuple[GpuReport, ...]


def parse(output: str) -> Report | Unknown:
    """The whole document, or why it can't be read."""
    begin = output.find("<?xml")
    try:
        root = ET.fromstring(output[begin:] if begin >= 0 else output)  # noqa: S314 - the driver's own
    except ET.ParseError:
        return Unknown(f"nvidia-smi -q -x wrote no XML: {first_line(output)}")
    driver = stated(root.findtext("driver_version"))
    if root.tag != "nvidia_smi_log" or driver is None:
        return Unknown(f"nvidia-smi -q -x wrote <{root.tag}>, not <nvidia_smi_log>")
    gpus = tuple(_gpu(gpu) for gpu in root.findall("gpu"))
    return Report(driver, stated(root.findtext("cuda_version")), gpus)


def _gpu(gpu: ET.Element) -> GpuReport:
    return GpuReport(
        pci=pci_address(gpu.get("id", "")),
        name=gpu.findtext("product_name", ""),
        persistence=_switch(gpu.findtext("persistence_mode")),
        temperature_c=number(gpu.findtext("temperature/gpu_temp")),
        ecc=_ecc(gpu),
        clocks=Clocks(
            number(gpu.findtext("clocks/sm_clock")),
            number(gpu.findtext("max_clocks/sm_clock")),
            _slowed(gpu),
        ),
        fabric=Fabric(stated(gpu.findtext("fabric/state")), stated(gpu.findtext("fabric/status"))),
    )


def _ecc(gpu: ET.Element) -> Ecc:
    return Ecc(
        enabled=_switch(gpu.findtext("ecc_mode/current_ecc")),
        uncorrected=_uncorrected(gpu.find("ecc_errors/volatile")),
        aggregate_uncorrected=_uncorrected(gpu.find("ecc_errors/aggregate")),
        remapped_uncorrectable=number(gpu.findtext("remapped_rows/remapped_row_unc")),
        remap_pending=_switch(gpu.findtext("remapped_rows/remapped_row_pending")),
        remap_failed=_switch(gpu.findtext("remapped_rows/remapped_row_failure")),
        retired_pending=_switch(gpu.findtext("retired_pages/pending_retirement")),
        worn_out=_any(
            _switch(gpu.findtext("ecc_errors/unrepairable_memory")),
            _switch(gpu.findtext("ecc_errors/aggregate/sram_threshold_exceeded")),
        ),
    )


def _uncorrected(counts: ET.Element | None) -> int | None:
    """SRAM and DRAM together. Drivers split SRAM by parity and SEC-DED from 535 on."""
    if counts is None:
        return None
    values = [number(c.text) for c in counts if "uncorrect" in c.tag]
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _slowed(gpu: ET.Element) -> tuple[str, ...]:
    for tag in _REASONS:
        found = gpu.find(tag)
        if found is not None:
            # The list is called reasons, each entry reason.
            prefix = f"{tag.removesuffix('s')}_"
            active = (c.tag.removeprefix(prefix) for c in found if c.text == "Active")
            return tuple(sorted(set(active) - {"gpu_idle"}))
    return ()


def _switch(text: str | None) -> bool | None:
    return {"enabled": True, "yes": True, "disabled": False, "no": False}.get(
        (text or "").strip().lower()
    )


def _any(*switches: bool | None) -> bool | None:
    known = [switch for switch in switches if switch is not None]
    return any(known) if known else None
