"""`pytest -m bench -s`: how long a plan takes, with its checks and its JSON."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra import checks
from infra.plan.plan import to_json

EXAMPLES = ("single-node", "wide-ep", "pd", "p6-b200", "p6-b300")
MOE = Path(sys.executable).with_name("moe")


@pytest.mark.bench
@pytest.mark.parametrize("stack", EXAMPLES)
def test_moe_plan_of_an_example(stack: str):
    began = time.perf_counter()
    subprocess.run([MOE, "plan", "--stack", stack, "--json"], check=True, capture_output=True)
    seconds = time.perf_counter() - began
    print(f"\nmoe plan --stack {stack}: {seconds:.2f} s, at most 1")
    assert seconds < 3


@pytest.mark.bench
@pytest.mark.parametrize(("nodes", "replicas"), [(256, 1), (16, 16), (1, 256)])
def test_plan_of_256_nodes(gpu_plan, nodes: int, replicas: int):
    began = time.perf_counter()
    group = {"instance_type": "p5.48xlarge", "nodes": nodes, "replicas": replicas}
    plan = gpu_plan(group)
    made = time.perf_counter()
    findings = checks.run(plan)
    checked = time.perf_counter()
    size = len(to_json(plan, findings))
    done = time.perf_counter()
    print(
        f"\n256 x p5.48xlarge, {replicas} x {nodes}: {done - began:.2f} s, at most 3 (plan"
        f" {made - began:.2f}, checks {checked - made:.2f}, JSON of {size >> 20} MiB"
        f" {done - checked:.2f})"
    )
    assert len(plan.nodes) == 256
    assert done - began < 9
