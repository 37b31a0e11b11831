"""`pytest -m bench -s`: seconds of `moe plan` and `moe check` as a person runs them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

MOE = Path(sys.executable).with_name("moe")
EXAMPLES = ("single-node", "wide-ep", "pd", "p6-b200", "p6-b300")
LARGE = """\
model: {name: deepseek-ai/DeepSeek-V3-0324, source: "s3://models/m"}
groups: {serve: {instance_type: p5en.48xlarge, nodes: NODES, replicas: REPLICAS}}
"""


def seconds(*argv: str | Path) -> float:
    """Of one run, which may find errors in the stack (1) but none in the settings (2)."""
    began = time.perf_counter()
    done = subprocess.run([MOE, *argv], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return time.perf_counter() - began


def measure(name: str, stack: list[str | Path], file: Path, aim: int) -> None:
    took = {
        "table": seconds("plan", *stack),
        "JSON": seconds("plan", *stack, "--json"),
        "SVG": seconds("plan", *stack, "--svg", file),
        "commands": seconds("plan", *stack, "--commands"),
        "moe check": seconds("check", *stack),
    }
    told = ", ".join(f"{what} {each:.2f}" for what, each in took.items())
    print(f"\nmoe plan of {name}, seconds, at most {aim} each: {told}")
    assert max(took.values()) < 3 * aim


@pytest.mark.bench
@pytest.mark.parametrize("stack", EXAMPLES)
def test_of_an_example(stack: str, tmp_path):
    measure(stack, ["--stack", stack], tmp_path / "plan.svg", aim=1)


@pytest.mark.bench
@pytest.mark.parametrize(("nodes", "replicas"), [(256, 1), (16, 16), (1, 256)])
def test_of_256_nodes(nodes: int, replicas: int, tmp_path):
    file = tmp_path / "large.yaml"
    text = LARGE.replace("NODES", str(nodes)).replace("REPLICAS", str(replicas))
    file.write_text(text)
    measure(f"{replicas} x {nodes} nodes", ["-f", file], tmp_path / "plan.svg", aim=3)
