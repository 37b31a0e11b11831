"""Command lines and environments on CPU types; those of GPU types are in test_serve_gpu.py."""

from __future__ import annotations

import pytest

from infra.plan.make import make
from infra.plan.request import EngineOptions


@pytest.fixture
def nodes_of(stack_request, group_request):
    return lambda **changes: make(stack_request(group_request(**changes))).nodes


@pytest.fixture
def argv_of(nodes_of):
    return lambda index=0, **changes: list(nodes_of(**changes)[index].argv)


def value(argv: list[str], flag: str) -> str:
    assert argv.count(flag) == 1
    return argv[argv.index(flag) + 1]


def test_primary_serves_the_api_and_headless_has_none(argv_of):
    primary, headless = argv_of(0), argv_of(1)
    assert value(primary, "--port") == "8000"
    assert value(primary, "--api-server-count") == "1"
    assert "--headless" not in primary
    assert not {"--host", "--port", "--api-server-count"} & set(headless)


def test_a_secondary_is_headless_whenever_it_has_a_start_rank(argv_of):
    # A start rank without --headless would silently mean hybrid load balancing.
    headless = argv_of(1, data_parallel_size_local=2)
    assert "--headless" in headless
    assert value(headless, "--data-parallel-start-rank") == "2"
    assert "--data-parallel-start-rank" not in argv_of(0)


@pytest.mark.parametrize("index", [0, 1])
def test_all_nodes_of_a_group_name_the_primary_and_the_same_parallelism(argv_of, index: int):
    argv = argv_of(index)
    assert value(argv, "--data-parallel-size") == "2"
    assert value(argv, "--data-parallel-size-local") == "1"
    assert value(argv, "--data-parallel-address") == "${SERVE_0_0_ADDRESS}"
    assert value(argv, "--data-parallel-rpc-port") == "13345"
    assert "--enable-expert-parallel" in argv
    assert value(argv, "--all2all-backend") == "allgather_reducescatter"


def test_one_rank_alone_has_no_parallelism_flags(argv_of):
    argv = argv_of(nodes=1)
    assert not [word for word in argv if "parallel" in word or "all2all" in word]


def test_ranks_of_one_node_need_no_meeting_point(argv_of):
    argv = argv_of(nodes=1, data_parallel_size_local=2)
    assert value(argv, "--data-parallel-size") == "2"
    assert "--data-parallel-address" not in argv


def test_options_that_are_not_given_are_left_to_vllm(argv_of):
    argv = argv_of(options=EngineOptions())
    assert "--max-model-len" not in argv
    assert value(argv, "--dtype") == "auto"


def test_options_are_passed_as_vllm_spells_them(argv_of):
    options = EngineOptions(
        max_model_len=1, max_num_batched_tokens=2, max_num_seqs=3, kv_cache_memory_bytes=4
    )
    argv = argv_of(options=options)
    assert value(argv, "--max-model-len") == "1"
    assert value(argv, "--max-num-batched-tokens") == "2"
    assert value(argv, "--max-num-seqs") == "3"
    assert value(argv, "--kv-cache-memory-bytes") == "4"


def test_cpu_nodes_run_eagerly_because_they_have_no_compiler(argv_of):
    assert "--enforce-eager" in argv_of(options=EngineOptions())


def test_extra_arguments_come_last(argv_of):
    argv = argv_of(options=EngineOptions(extra_args=("--seed", "7")))
    assert argv[-2:] == ["--seed", "7"]


def test_kv_cache_is_an_eighth_of_memory_shared_by_the_ranks(argv_of):
    argv = argv_of(data_parallel_size_local=2, options=EngineOptions())
    assert value(argv, "--kv-cache-memory-bytes") == str(4 * 2**30 // 8 // 2)


def test_a_groups_own_environment_wins(nodes_of):
    options = EngineOptions(env={"OMP_NUM_THREADS": "4", "X": "y"})
    env = nodes_of(options=options)[0].env
    assert (env["OMP_NUM_THREADS"], env["X"]) == ("4", "y")


@pytest.mark.parametrize(
    ("instance_type", "local", "threads"),
    [("c7i.large", 1, "1"), ("c7i.large", 2, "1"), ("c7i.4xlarge", 2, "4")],
)
def test_ranks_of_a_node_share_its_cores(nodes_of, instance_type, local, threads):
    nodes = nodes_of(instance_type=instance_type, data_parallel_size_local=local)
    assert nodes[0].env["OMP_NUM_THREADS"] == threads
