"""`/proc/driver/nvidia/params`: the options that the NVIDIA module was loaded with."""

from __future__ import annotations

from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("cat", "/proc/driver/nvidia/params")


@dataclass(frozen=True)
class Params:
    """stream_mem_ops: for GPU-initiated network work. peer_mapping: PeerMappingOverride is on."""

    stream_mem_ops: bool
    peer_mapping: bool


def parse(output: str) -> Params | Unknown:
    """The two options that matter for EFA and DeepEP."""
    values = dict(line.split(": ", 1) for line in output.splitlines() if ": " in line)
    if "EnableStreamMemOPs" not in values:
        return Unknown(f"the options of the NVIDIA module are not understood: {first_line(output)}")
    dwords = values.get("RegistryDwords", "").strip('"').replace(" ", "")
    return Params(values["EnableStreamMemOPs"] == "1", "PeerMappingOverride=1" in dwords)
