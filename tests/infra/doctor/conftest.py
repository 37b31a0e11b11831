"""An assignment as the plan of two nodes gives it."""

from __future__ import annotations

import json

import pytest

from infra import model, sources
from infra.plan.assignments import Place, assignments
from infra.planning import make_plan
from node_bootstrap.assignment import Archive

SETTINGS = """\
config:
  aws:region: us-east-1
  moe-serving:model: {name: tiny, source: tiny}
  moe-serving:groups:
    serve: {instance_type: c7i.large, nodes: 2, dtype: float32}
"""


@pytest.fixture
def assignment(tmp_path):
    (tmp_path / "tiny").mkdir()
    config = {"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8}
    (tmp_path / "tiny/config.json").write_text(json.dumps(config))
    path = tmp_path / "Pulumi.dev.yaml"
    path.write_text(SETTINGS)
    source = sources.read_file(path)
    settings = sources.load(source, "dev")
    plan = make_plan("dev", settings, model.facts(settings.model, source.base))
    addresses = {node.name: "10.42.0.10" for node in plan.nodes}
    place = Place("us-east-1", "b", Archive("k", "a1"), addresses)
    return assignments(plan, place)["serve-0-0"]
