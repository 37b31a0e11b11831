"""`nvidia-smi topo -m`: how GPUs reach one another, and which network card is near which GPU."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("nvidia-smi", "topo", "-m")
_LINK = re.compile(r"NV\d+|X|PIX|PXB|PHB|NODE|SYS")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Near:
    """How far one network card is from one GPU: PIX, PXB, PHB, NODE or SYS, nearest first."""

    gpu: str
    nic: str
    distance: str


@dataclass(frozen=True)
class Topology:
    """gpu_links: `GPU0 GPU1` -> NV18, PIX, …, each pair once. nics: their devices by NIC name."""

    gpus: tuple[str, ...]
    gpu_links: dict[str, str]
    near: tuple[Near, ...]
    nics: dict[str, str]

    @property
    def without_nvlink(self) -> tuple[str, ...]:
        """Pairs of GPUs that reach one another over PCIe or the CPUs alone."""
        return tuple(p for p, link in self.gpu_links.items() if not link.startswith("NV"))


def parse(output: str) -> Topology | Unknown:
    """The matrix and the legend of network cards below it."""
    lines = [_ANSI.sub("", line) for line in output.splitlines()]
    header = next((n for n, line in enumerate(lines) if line.split()[:1] == ["GPU0"]), None)
    if header is None:
        return Unknown(f"nvidia-smi topo -m shows no matrix: {first_line(output)}")
    columns = [c for c in lines[header].split() if re.fullmatch(r"(GPU|NIC)\d+", c)]
    rows = {}
    for line in lines[header + 1 :]:
        cells = line.split()
        if not cells or cells[0] not in columns:
            continue
        links = cells[1 : len(columns) + 1]
        if len(links) < len(columns) or not all(_LINK.fullmatch(c) for c in links):
            return Unknown(f"a row of nvidia-smi topo -m is not understood: {line.strip()[:100]}")
        rows[cells[0]] = dict(zip(columns, links, strict=True))
    gpus = tuple(c for c in columns if c.startswith("GPU"))
    if missing := [g for g in gpus if g not in rows]:
        return Unknown(f"nvidia-smi topo -m has no row of {', '.join(missing)}")
    return _topology(gpus, columns, rows, "\n".join(lines))


def _topology(
    gpus: tuple[str, ...], columns: list[str], rows: dict[str, dict[str, str]], text: str
) -> Topology:
    pairs = {f"{a} {b}": rows[a][b] for n, a in enumerate(gpus) for b in gpus[n + 1 :]}
    nics = [c for c in columns if c.startswith("NIC")]
    near = tuple(Near(g, n, rows[g][n]) for g in gpus for n in nics)
    return Topology(gpus, pairs, near, dict(re.findall(r"(NIC\d+): (\S+)", text)))
