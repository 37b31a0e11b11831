from __future__ import annotations

import pytest

from infra.plan.request import EngineOptions, GroupRequest, Request, Vllm
from node_bootstrap.assignment import WeightFile


@pytest.fixture
def group_request():
    def make(**changes) -> GroupRequest:
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

    return make


@pytest.fixture
def stack_request(group_request):
    def make(*groups: GroupRequest) -> Request:
        return Request(
            stack="dev",
            model_name="org/tiny",
            model_files=(WeightFile("config.json", 10, "ab"), WeightFile("m.bin", 90, "cd")),
            model_config={"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8},
            vllm=Vllm("0.32.0"),
            groups=groups or (group_request(),),
        )

    return make
