from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from infra import model, sources
from infra.cli.app import app
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
def stack_file(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    config = {"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8}
    (folder / "config.json").write_text(json.dumps(config))
    path = tmp_path / "Pulumi.dev.yaml"
    path.write_text(SETTINGS)
    return path


@pytest.fixture
def told(stack_file):
    """Assignments of the two nodes of the stack file."""
    source = sources.read_file(stack_file)
    settings = sources.load(source, "dev")
    plan = make_plan("dev", settings, model.facts(settings.model, source.base))
    addresses = {node.name: "10.42.0.10" for node in plan.nodes}
    bucket = "moe-serving-dev-123456789012"
    return assignments(plan, Place("us-east-1", bucket, Archive("k", "a1"), addresses))


@pytest.fixture
def moe():
    def run(*argv: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(app, argv, input=answer)

    return run
