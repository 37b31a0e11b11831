"""Seconds and resources of a preview over the number of p5.48xlarge nodes (33 interfaces each)."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

import pytest
import yaml
from rehearsed import Rehearsed

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

NODES = (2, 8, 32, 64, 256)
MOST_OF_A_GROUP = 8
"""Nodes of a group: 64 ranks for the model's 256 experts; more nodes are more replicas."""
ALIKE = ((2, 8), (32, 64), (64, 256))
"""Sizes that differ by nodes alone: several groups have a gateway, and it resources of its own."""
ROUNDS = 2
TARGET_SECONDS, TARGET_NODES = 15.0, 64
"""What a preview should take at most on idle processors. Shown, not asserted: others use them."""
WORSE_THAN_LINEAR = 1.5
"""From the second size on seconds may grow so much faster than nodes; other work runs beside."""


def write_stack(folder: Path, nodes: int) -> str:
    name = f"wide{nodes}"
    model = "deepseek-ai/DeepSeek-V3-0324"
    of_a_group = min(nodes, MOST_OF_A_GROUP)
    group = {
        "instance_type": "p5.48xlarge",
        "nodes": of_a_group,
        "replicas": nodes // of_a_group,
        "max_model_len": 16384,
        "max_num_batched_tokens": 1024,
        "load_format": "runai_streamer",
    }
    config = {
        "aws:region": "us-east-1",
        "moe-serving:model": {"name": model, "source": f"s3://my-models/{model}"},
        "moe-serving:vllm": {"version": "0.33.0"},
        "moe-serving:groups": {"serve": group},
        "moe-serving:capacity": {"kind": "reserve"},
    }
    (folder / f"Pulumi.{name}.yaml").write_text(yaml.safe_dump({"config": config}))
    return name


def test_previews_grow_with_the_nodes_and_no_faster(tmp_path: Path, capsys) -> None:
    stacks = tmp_path / "stacks"
    stacks.mkdir()
    rehearsed = Rehearsed(tmp_path / "home", stacks)
    names = {nodes: write_stack(stacks, nodes) for nodes in NODES}
    rows: dict[int, tuple[int, float]] = {}
    try:
        for nodes, name in names.items():
            seconds = []
            for _ in range(ROUNDS):
                began = time.monotonic()
                said = rehearsed.run("preview", "--stack", name, timeout=900).stdout
                seconds.append(time.monotonic() - began)
            found = re.search(r"\+ (\d+) to create", said)
            assert found, said[-2000:]
            rows[nodes] = (int(found[1]), min(seconds))
    finally:
        rehearsed.run("down", "--stack", names[NODES[0]])
    with capsys.disabled():
        print("\nnodes  resources  preview")
        for nodes, (resources, took) in rows.items():
            aimed = nodes <= TARGET_NODES
            within = "within" if took <= TARGET_SECONDS else "above"
            told = f"  {within} the target of {TARGET_SECONDS:g} s" if aimed else ""
            print(f"{nodes:5}  {resources:9}  {took:5.1f} s{told}")
    per_node = {(rows[m][0] - rows[n][0]) / (m - n) for n, m in ALIKE}
    assert len(per_node) == 1, f"resources per node differ by size: {per_node}"
    for fewer, more in itertools.pairwise(NODES[1:]):
        allowed = WORSE_THAN_LINEAR * more / fewer
        assert rows[more][1] <= allowed * rows[fewer][1], (fewer, more)
