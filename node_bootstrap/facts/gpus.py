"""The GPUs that the driver shows: names, memory, PCI addresses."""

from __future__ import annotations

from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line, number

_FIELDS = ("index", "uuid", "name", "pci.bus_id", "memory.total", "driver_version")
COMMAND = ("nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Gpu:
    """One GPU. pci: domain:bus:device.function in small letters, as sysfs names it."""

    index: int
    uuid: str
    name: str
    pci: str
    memory_mib: int
    driver: str


@dataclass(frozen=True)
class Gpus:
    """Those that answered, and what the driver said of those that did not."""

    gpus: tuple[Gpu, ...]
    complaints: tuple[str, ...] = ()


def parse(output: str) -> Gpus | Unknown:
    """One line a GPU; a GPU that is lost gives a sentence instead of a line."""
    found, complaints = [], []
    for line in filter(None, (raw.strip() for raw in output.splitlines())):
        gpu = _gpu([cell.strip() for cell in line.split(",")])
        if gpu is not None:
            found.append(gpu)
        else:
            complaints.append(line)
    if not found:
        return Unknown(f"nvidia-smi shows no GPU: {first_line(output)}")
    return Gpus(tuple(found), tuple(complaints))


def pci_address(bus_id: str) -> str:
    """`00000000:53:00.0` of nvidia-smi as sysfs and lspci write it: `0000:53:00.0`."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def _gpu(cells: list[str]) -> Gpu | None:
    if len(cells) != len(_FIELDS) or not cells[0].isdigit():
        return None
    memory = number(cells[4])
    if memory is None:
        return None
    return Gpu(int(cells[0]), cells[1], cells[2], pci_address(cells[3]), memory, cells[5])
