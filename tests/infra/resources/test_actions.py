"""What `moe preflight` tries for a role, against all that the program makes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra import model, sources
from infra.planning import make_plan
from infra.preflight import actions, asked_of
from infra.preflight.identity import wanted

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pulumi_aws")

AWS: Any = SimpleNamespace(
    arn="arn:aws:iam::123456789012:user/dev", account="123456789012", region="us-east-1"
)
GPUS = {
    "moe-serving:model": {"name": "deepseek-ai/DeepSeek-V3-0324", "source": "s3://m/m"},
    "moe-serving:vllm": {"version": "0.33.0"},
    "moe-serving:groups": {
        "serve": {
            "instance_type": "p5en.48xlarge",
            "nodes": 2,
            "max_model_len": 16384,
            "max_num_batched_tokens": 1024,
            "load_format": "runai_streamer",
        }
    },
    "moe-serving:capacity": {"kind": "reserve"},
}
PUBLIC = {
    "exposure": "public",
    "certificate_arn": "arn:aws:acm:us-east-1:123456789012:certificate/0a1b2c3d",
    "allowed_cidrs": ["203.0.113.0/24"],
}
STACKS = {
    "nodes without GPUs": {},
    "GPU nodes with a reservation and a NAT gateway": GPUS,
    "a public endpoint behind a gateway": {"moe-serving:endpoint": PUBLIC},
    "a load balancer inside": {
        "moe-serving:endpoint": {"load_balancer": True, "allowed_cidrs": ["10.0.0.0/8"]}
    },
}


@pytest.mark.parametrize("changes", STACKS.values(), ids=STACKS)
def test_every_type_that_the_program_makes_is_tried_with_its_actions(run_program, config, changes):
    given = config | changes
    account, _ = run_program(given)
    made = {made.kind.removeprefix("aws:") for made in account.made if made.kind.startswith("aws:")}

    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in given.items()}
    source = sources.from_pulumi(texts, "unit", Path("/"))
    settings = sources.load(source, "unit")
    plan = make_plan("unit", settings, model.facts(settings.model, source.base), source.region)
    tried = {action for some in wanted(AWS, asked_of(plan, settings)).values() for action in some}

    assert made <= set(actions.ACTIONS)
    assert set(actions.of(made)) <= tried
