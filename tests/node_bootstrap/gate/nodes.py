"""Made-up nodes for the gate: a healthy p5en, with any fact taken from a file of the facts."""

from __future__ import annotations

import json
from pathlib import Path

from node_bootstrap import runner
from node_bootstrap.assignment import Hardware

FACTS = Path(__file__).parents[1] / "facts"
P5EN = Hardware(
    private_ip="127.0.0.1",
    cpus_min=1,
    memory_gib_min=0.1,
    gpu_count=8,
    gpu_name="H200",
    gpu_memory_mib=144384,
    nvlink=True,
    efa_devices=2,
    driver_min="580",
)
HEALTHY = {
    "nvidia-smi --query-gpu": "gpus/p5en-eight-h200",
    "nvidia-smi -q -x": "gpu_report/h100-healthy",
    "nvidia-smi topo": "gpu_topology/p5en-eight-h200-sixteen-nics",
    "nvidia-smi nvlink": "nvlink/h100-two-of-one-host",
    "systemctl show": "unit/fabric-manager-runs",
    "nv-fabricmanager": "fabric_manager/of-595",
    "lspci": "pci/p5en-part-of-the-bus",
    "dmesg": "xid/h100-boot-without-events",
    "dcgmi": "dcgm/level-1-passes",
}


class Node:
    """Answers the gate's commands from files; notes what was done to it in `done`.

    files: of facts, each in the place of the healthy one. missing: facts whose tool is not there.
    """

    def __init__(self, *files: str, missing: tuple[str, ...] = ()):
        instead = {file.partition("/")[0]: file for file in files} | dict.fromkeys(missing, "")
        self.files = {
            command: instead.get(file.partition("/")[0], file) for command, file in HEALTHY.items()
        }
        self.done: list[str] = []

    def __call__(self, command) -> str:
        line = " ".join(command)
        for begin, file in self.files.items():
            if line.startswith(begin):
                if not file:
                    raise runner.CommandError(tuple(command), None, "No such file or directory")
                return "\n".join(json.loads((FACTS / f"{file}.json").read_text())["output"])
        self.done.append(line)
        return ""
