"""The commands of vLLM's own guide to Mixture-of-Experts serving come out for matching settings.

The guide was written around vLLM 0.13: it knows EPLB's `policy` (0.13), still has `pplx` (gone in
0.17), and no backend that came with 0.15 or later. Where a command of it can't work, the test that
has its settings says so.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest

from infra import catalog
from infra.plan.make import make
from infra.plan.request import Eplb, GroupRequest, Request, Vllm

if TYPE_CHECKING:
    from infra.plan.plan import Group, Plan

WRITTEN_FOR, TODAY = "0.13.0", "0.33.0"
MODEL = "deepseek-ai/DeepSeek-V3-0324"

PLANS_OWN = {
    "--host",
    "--port",
    "--api-server-count",
    "--max-num-batched-tokens",
    "--gpu-memory-utilization",
    "--compilation-config",
    "--served-model-name",
}
"""Flags that the plan states beyond the guide's: who listens, and defaults that changed."""


@pytest.fixture
def plan_of(group_request):
    def made(version: str, *groups: dict, **changes) -> Plan:
        requests = tuple(gpu_group(group_request, **g) for g in (groups or (changes,)))
        return make(
            Request(
                stack="seed",
                model_name=MODEL,
                model_files=(),
                model_config={},
                model_source="hf",
                model_shape=catalog.model(MODEL),
                vllm=Vllm(version),
                groups=requests,
            )
        )

    return made


def gpu_group(group_request, **changes) -> GroupRequest:
    given = {
        "instance_type": "p5en.48xlarge",
        "nodes": 1,
        "data_parallel_size_local": None,
        "options": type(group_request().options)(),
    }
    return group_request(**(given | changes))


FOLDER = f"/var/lib/moe/models/{MODEL}"


def flags(argv: tuple[str, ...]) -> dict[str, str | bool]:
    """Flag -> value, True for a switch; the words before the first flag are left out."""
    found: dict[str, str | bool] = {}
    words = list(argv)
    while words and not words[0].startswith("--"):
        words.pop(0)
    while words:
        flag = words.pop(0)
        assert flag not in found, f"{flag} is given twice"
        valued = words and not words[0].startswith("--")
        found[flag] = words.pop(0) if valued else True
    return found


def guide(command: str) -> dict[str, str | bool]:
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:3] == ["vllm", "serve", MODEL]
    return flags(tuple(words[3:]))


def assert_same(argv: tuple[str, ...], wanted: dict[str, str | bool]) -> None:
    # The guide has each node fetch the model; here one has copied it to S3 for all.
    assert argv[:5] == ("vllm", "serve", FOLDER, "--served-model-name", MODEL)
    assert {k: v for k, v in flags(argv).items() if k not in PLANS_OWN - wanted.keys()} == wanted


SINGLE_NODE = """vllm serve deepseek-ai/DeepSeek-V3-0324 \
  --tensor-parallel-size 1 \
  --data-parallel-size 8 \
  --enable-expert-parallel \
  --all2all-backend pplx"""


def test_single_node_high_throughput(plan_of):
    plan = plan_of(WRITTEN_FOR, all2all_backend="pplx")
    assert_same(plan.nodes[0].argv, guide(SINGLE_NODE))


def test_single_node_today_has_no_pplx(plan_of):
    (group,) = plan_of(TODAY, all2all_backend="pplx").groups
    assert group.all2all_backend.chosen == "allgather_reducescatter"
    assert [note.code for note in group.notes] == ["ALL2ALL_REPLACED"]
    wanted = guide(SINGLE_NODE) | {"--all2all-backend": "allgather_reducescatter"}
    assert_same(group.primary.argv, wanted)


PRIMARY = """vllm serve deepseek-ai/DeepSeek-V3-0324 \
  --all2all-backend deepep_low_latency \
  --tensor-parallel-size 1 \
  --enable-expert-parallel \
  --data-parallel-size 16 \
  --data-parallel-size-local 8 \
  --data-parallel-address ${SERVE_0_0_ADDRESS} \
  --data-parallel-rpc-port 13345 \
  --api-server-count 8"""

SECONDARY = """vllm serve deepseek-ai/DeepSeek-V3-0324 \
  --all2all-backend deepep_low_latency \
  --tensor-parallel-size 1 \
  --enable-expert-parallel \
  --data-parallel-size 16 \
  --data-parallel-size-local 8 \
  --data-parallel-start-rank 8 \
  --data-parallel-address ${SERVE_0_0_ADDRESS} \
  --data-parallel-rpc-port 13345 \
  --headless"""


@pytest.fixture
def with_uccl(plan_of):
    """Two nodes on low-latency kernels: on EFA they need UCCL-EP, which the guide doesn't say."""

    def made(version: str) -> Group:
        plan = plan_of(version, nodes=2, all2all_backend="deepep_low_latency")
        (refused,) = plan.groups
        assert [note.code for note in refused.notes] == ["ALL2ALL_NOT_ON_EFA"]
        request = Request(
            stack="seed",
            model_name=MODEL,
            model_files=(),
            model_config={},
            model_source="hf",
            model_shape=catalog.model(MODEL),
            vllm=Vllm(version, deepep="uccl"),
            groups=(
                GroupRequest(
                    "serve", "serve", "p5en.48xlarge", 2, 1, 1, None, True,  # noqa: FBT003 - the dataclass's own order
                    "deepep_low_latency", refused.options,
                ),
            ),
        )  # fmt: skip
        return make(request).groups[0]

    return made


def test_primary_node(with_uccl):
    assert_same(with_uccl(WRITTEN_FOR).nodes[0].argv, guide(PRIMARY))


def test_secondary_node(with_uccl):
    assert_same(with_uccl(WRITTEN_FOR).nodes[1].argv, guide(SECONDARY))


def test_both_nodes_today_state_the_batch_that_sizes_the_buffers(with_uccl):
    group = with_uccl(TODAY)
    for node, command in zip(group.nodes, (PRIMARY, SECONDARY), strict=True):
        assert_same(node.argv, guide(command) | {"--max-num-batched-tokens": "256"})


def test_high_throughput_over_two_nodes_needs_ranks_and_an_address_too(plan_of):
    # The guide's command gives neither --data-parallel-address nor a second node's start rank, so
    # its two nodes would each wait for the other on loopback.
    group = plan_of(WRITTEN_FOR, nodes=2).groups[0]
    given = flags(group.nodes[1].argv)
    assert given["--data-parallel-size"] == "16"
    assert given["--data-parallel-size-local"] == "8"
    assert given["--data-parallel-start-rank"] == "8"
    assert given["--data-parallel-address"] == "${SERVE_0_0_ADDRESS}"


EPLB = {
    "window_size": 1000,
    "step_interval": 3000,
    "num_redundant_experts": 2,
    "log_balancedness": True,
}


@pytest.mark.parametrize("version", [WRITTEN_FOR, "0.11.0", TODAY])
def test_expert_load_balancing(plan_of, version: str):
    # Two redundant experts over eight ranks are no even split: the guide's value needs EP 2.
    given = flags(plan_of(version, eplb=Eplb(**EPLB)).nodes[0].argv)
    assert given["--enable-eplb"] is True
    # Asynchronous moves became the default in 0.23, so from then on the plan says which it means.
    today = {"use_async": True} if version == TODAY else {}
    assert json.loads(str(given["--eplb-config"])) == EPLB | today


def test_round_robin_placement(plan_of):
    given = flags(plan_of(WRITTEN_FOR, expert_placement_strategy="round_robin").nodes[0].argv)
    assert given["--expert-placement-strategy"] == "round_robin"


PD = ({"name": "prefill", "role": "prefill"}, {"name": "decode", "role": "decode"})


@pytest.mark.parametrize(
    ("name", "backend", "role"),
    [
        ("prefill", "deepep_high_throughput", "kv_producer"),
        ("decode", "deepep_low_latency", "kv_consumer"),
    ],
)
@pytest.mark.parametrize("version", [WRITTEN_FOR, TODAY])
def test_prefill_and_decode(plan_of, version: str, name: str, backend: str, role: str):
    plan = plan_of(version, *PD)
    node = next(n for n in plan.nodes if n.name.startswith(name))
    given = flags(node.argv)
    transfer = json.loads(str(given["--kv-transfer-config"]))
    assert given["--all2all-backend"] == backend
    assert given["--tensor-parallel-size"] == "1"
    assert given["--data-parallel-size"] == "8"
    assert given["--enable-expert-parallel"] is True
    assert (transfer["kv_connector"], transfer["kv_role"]) == ("NixlConnector", role)
    # The guide names no NIXL backend: UCX would be taken, which has no RDMA on EFA.
    assert transfer["kv_connector_extra_config"]["backends"] == ["LIBFABRIC"]


def test_fp8_and_memory_share(plan_of, group_request):
    options = type(group_request().options)(quantization="fp8", gpu_memory_utilization=0.95)
    given = flags(plan_of(WRITTEN_FOR, options=options).nodes[0].argv)
    assert given["--quantization"] == "fp8"
    assert given["--gpu-memory-utilization"] == "0.95"


def test_kv_cache_of_one_request_is_half_a_gib_not_five_gb(plan_of):
    (group,) = plan_of(WRITTEN_FOR).groups
    assert group.memory is not None
    assert group.memory.kv_bytes_per_token * 8192 / 2**30 == pytest.approx(0.536, abs=0.001)
