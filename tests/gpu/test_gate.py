"""The hardware gate and the facts of GPUs on a real machine."""

from __future__ import annotations

import dataclasses
import re

import pytest

from node_bootstrap.assignment import Hardware
from node_bootstrap.facts.base import Unknown
from node_bootstrap.facts.read import run
from node_bootstrap.gate.decide import worst
from node_bootstrap.gate.observe import observe
from node_bootstrap.gate.rules import judge

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def wanted(gpu) -> Hardware:
    """What this machine is by nvidia-smi's own words."""
    name = re.sub(r"^NVIDIA ", "", gpu[0]).split()[0]
    return Hardware("127.0.0.1", 1, 0.1, gpu_count=len(gpu), gpu_name=name, driver_min="535")


@pytest.fixture(scope="module")
def seen(wanted):
    found = observe(dataclasses.replace(wanted, nvlink=True), run)
    for field in dataclasses.fields(found):
        print(f"{field.name}: {str(getattr(found, field.name))[:600]}")
    return found


def test_what_nvidia_smi_says_is_understood(seen, wanted):
    for fact in (seen.gpus, seen.report, seen.topology, seen.links):
        assert not isinstance(fact, Unknown), fact
    assert len(seen.gpus.gpus) == wanted.gpu_count
    assert {g.name for g in seen.gpus.gpus}.__len__() == 1


def test_the_machine_as_it_is_passes_but_for_what_a_virtual_machine_hides(seen, wanted):
    findings = judge(wanted, seen)
    for finding in findings:
        print(f"{finding.action} {finding.rule} {finding.device} {finding.what}")
    # On a virtual machine with a part of a host's GPUs the fabric manager runs on the host.
    others = tuple(f for f in findings if f.rule != "fabric_manager")
    assert worst(others) in ("OK", "MONITOR")
    states = {gpu.fabric.state for gpu in seen.report.gpus if gpu.fabric}
    assert states <= ({"Completed"} if wanted.gpu_count > 1 else {None})


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"gpu_count": 64}, "gpu_count"),
        ({"gpu_name": "B300"}, "gpu_type"),
        ({"gpu_memory_mib": 999_999}, "gpu_memory"),
        ({"driver_min": "999"}, "driver"),
        ({"efa_devices": 32}, "efa"),
    ],
)
def test_a_machine_that_is_not_the_planned_one_is_isolated(seen, wanted, change, rule):
    if rule == "efa" and isinstance(seen.bus, Unknown):
        pytest.skip(seen.bus.unknown)
    findings = judge(dataclasses.replace(wanted, **change), seen)
    assert any(rule in finding.rule for finding in findings), findings
    assert worst(findings) in ("ISOLATE", "REBOOT")
