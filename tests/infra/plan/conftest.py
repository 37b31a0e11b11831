from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from infra import catalog
from infra.plan.make import make
from infra.plan.request import EngineOptions, GroupRequest, Request, Vllm
from node_bootstrap.assignment import WeightFile

if TYPE_CHECKING:
    from infra.plan.plan import Plan


@pytest.fixture
def group_request():
    def make_group(**changes) -> GroupRequest:
        given = {
            "name": "serve",
            "role": "serve",
            "instance_type": "c7i.large",
            "nodes": 2,
            "replicas": 1,
            "tensor_parallel_size": 1,
            "data_parallel_size_local": 1,
            "enable_expert_parallel": True,
            "all2all_backend": "auto",
            "options": EngineOptions(dtype="float32", max_model_len=512),
        }
        return GroupRequest(**(given | changes))

    return make_group


@pytest.fixture
def stack_request(group_request):
    def make_request(*groups: GroupRequest) -> Request:
        return Request(
            stack="dev",
            model_name="org/tiny",
            model_files=(WeightFile("config.json", 10, "ab"), WeightFile("m.bin", 90, "cd")),
            model_config={"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8},
            vllm=Vllm("0.32.0"),
            groups=groups or (group_request(),),
        )

    return make_request


DEEPSEEK = "deepseek-ai/DeepSeek-V3-0324"


@pytest.fixture
def gpu_plan(group_request):
    """Makes the plan of groups on p5en nodes; each group is a dictionary of its changes."""

    def make_gpu_plan(
        *groups: dict, version: str = "0.33.0", model: str = DEEPSEEK, vllm: dict | None = None
    ) -> Plan:
        usual = {
            "instance_type": "p5en.48xlarge",
            "nodes": 1,
            "data_parallel_size_local": None,
            "options": EngineOptions(),
        }
        return make(
            Request(
                stack="dev",
                model_name=model,
                model_files=(),
                model_config={},
                model_source="s3://models/m",
                model_shape=catalog.model(model),
                vllm=Vllm(version, **(vllm or {})),
                groups=tuple(group_request(**(usual | changes)) for changes in groups or ({},)),
            )
        )

    return make_gpu_plan
