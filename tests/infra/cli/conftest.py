from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from infra.cli.app import app

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
def moe():
    def run(*argv: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(app, argv, input=answer)

    return run
