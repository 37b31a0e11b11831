"""Command lines and environments on GPU types, in the form of each release."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra import catalog
from infra.plan.request import EngineOptions, Eplb, KvTransferOptions

VERSIONS = catalog.release_versions()


def value(argv: tuple[str, ...], flag: str) -> str:
    assert argv.count(flag) == 1, f"{flag} in {argv}"
    return argv[argv.index(flag) + 1]


# --- the all2all backend -------------------------------------------------------------------


def test_0_11_0_takes_the_backend_as_an_environment_variable(gpu_plan):
    node = gpu_plan({"nodes": 2}, version="0.11.0").nodes[0]
    assert node.env["VLLM_ALL2ALL_BACKEND"] == "allgather_reducescatter"
    assert "--all2all-backend" not in node.argv


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_later_releases_take_it_as_a_flag_alone(gpu_plan, version: str):
    node = gpu_plan({"nodes": 2}, version=version).nodes[0]
    assert value(node.argv, "--all2all-backend") in catalog.release(version).all2all.choices
    assert "VLLM_ALL2ALL_BACKEND" not in node.env


def test_without_expert_parallelism_no_backend_is_named(gpu_plan):
    (group,) = gpu_plan({"enable_expert_parallel": False, "tensor_parallel_size": 8}).groups
    assert group.all2all_backend.chosen == "none"
    assert "--all2all-backend" not in group.primary.argv


@pytest.mark.parametrize(("version", "tokens"), [("0.19.1", None), ("0.20.2", "256")])
def test_low_latency_states_the_batch_since_its_default_sizes_the_buffers(
    gpu_plan, version: str, tokens: str | None
):
    asked = {"role": "decode", "all2all_backend": "deepep_low_latency"}
    argv = gpu_plan(asked, version=version).nodes[0].argv
    found = value(argv, "--max-num-batched-tokens") if tokens else None
    assert found == tokens
    assert tokens or "--max-num-batched-tokens" not in argv


def test_deepep_v2_over_efa_goes_through_the_proxy(gpu_plan):
    env = gpu_plan({"nodes": 2}).nodes[0].env
    assert (env["NCCL_GIN_ENABLE"], env["NCCL_GIN_TYPE"]) == ("1", "2")


def test_deepep_v2_inside_a_node_skips_the_test_for_gin(gpu_plan):
    env = gpu_plan({"all2all_backend": "deepep_v2"}).nodes[0].env
    assert env["EP_DISABLE_GIN"] == "1"
    assert "NCCL_GIN_TYPE" not in env


def test_prefill_on_deepep_v2_runs_eagerly_its_frugal_mode(gpu_plan):
    pair = [{"name": r, "role": r, "nodes": 2} for r in ("prefill", "decode")]
    prefill, decode = gpu_plan(*pair).groups
    assert (prefill.all2all_backend.chosen, prefill.enforce_eager) == ("deepep_v2", True)
    assert "--enforce-eager" in prefill.primary.argv
    assert "--enforce-eager" not in decode.primary.argv


# --- load balancing ------------------------------------------------------------------------


def test_api_servers_are_counted_since_the_default_depends_on_the_mode(gpu_plan):
    assert value(gpu_plan(version="0.15.1").nodes[0].argv, "--api-server-count") == "8"
    assert "--api-server-count" not in gpu_plan(version="0.14.1").nodes[0].argv


def test_hybrid_every_node_has_an_api_a_start_rank_and_no_headless(gpu_plan):
    nodes = gpu_plan({"nodes": 2, "load_balancing": "hybrid"}).nodes
    for index, node in enumerate(nodes):
        assert "--headless" not in node.argv
        assert "--data-parallel-hybrid-lb" in node.argv
        assert value(node.argv, "--data-parallel-start-rank") == str(8 * index)
        assert value(node.argv, "--api-server-count") == "8"
        assert node.secret_env


def test_external_one_port_per_rank(gpu_plan):
    nodes = gpu_plan({"nodes": 2, "load_balancing": "external"}).nodes
    for node in nodes:
        assert "--data-parallel-multi-port-external-lb" in node.argv
        assert value(node.argv, "--api-server-count") == "1"
    assert value(nodes[1].argv, "--data-parallel-start-rank") == "8"


def test_external_with_one_rank_per_node_names_the_rank(gpu_plan):
    asked = {"nodes": 2, "load_balancing": "external", "tensor_parallel_size": 8}
    nodes = gpu_plan(asked).nodes
    assert [value(n.argv, "--data-parallel-rank") for n in nodes] == ["0", "1"]
    assert "--data-parallel-size-local" not in nodes[0].argv


def test_a_rank_over_two_nodes(gpu_plan):
    nodes = gpu_plan({"nodes": 2, "tensor_parallel_size": 16}).nodes
    for index, node in enumerate(nodes):
        assert value(node.argv, "--nnodes") == "2"
        assert value(node.argv, "--node-rank") == str(index)
        assert value(node.argv, "--master-addr") == "${SERVE_0_0_ADDRESS}"
        assert "--data-parallel-start-rank" not in node.argv
        assert ("--headless" in node.argv) == (index == 1)


# --- EPLB ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_eplb_has_only_fields_of_the_release(gpu_plan, version: str):
    everything = Eplb(
        16, 1000, 3000, log_balancedness=True, log_balancedness_interval=5, use_async=True,
        policy="default", communicator="torch_gloo", enable_migration_batching=True,
    )  # fmt: skip
    argv = gpu_plan({"nodes": 2, "eplb": everything}, version=version).nodes[1].argv
    fields = json.loads(value(argv, "--eplb-config"))
    assert fields.keys() == catalog.release(version).eplb_fields.keys()


@pytest.mark.parametrize(
    ("version", "nodes", "communicator"),
    [("0.19.1", 2, None), ("0.20.2", 2, "torch_gloo"), ("0.33.0", 1, None)],
)
def test_eplb_on_efa_goes_through_gloo(gpu_plan, version, nodes, communicator):
    argv = gpu_plan({"nodes": nodes, "eplb": Eplb(16)}, version=version).nodes[0].argv
    assert json.loads(value(argv, "--eplb-config")).get("communicator") == communicator


@pytest.mark.parametrize(("version", "stated"), [("0.22.1", None), ("0.23.0", True)])
def test_eplb_states_asynchronous_moves_where_they_are_the_default(gpu_plan, version, stated):
    argv = gpu_plan({"eplb": Eplb(8)}, version=version).nodes[0].argv
    assert json.loads(value(argv, "--eplb-config")).get("use_async") is stated


# --- options -------------------------------------------------------------------------------


def test_the_memory_share_is_stated_because_its_default_changed(gpu_plan):
    for version in ("0.19.1", "0.20.2"):
        argv = gpu_plan(version=version).nodes[0].argv
        assert value(argv, "--gpu-memory-utilization") == "0.9"


def test_an_option_that_the_release_lacks_is_left_out_and_noted(gpu_plan):
    (group,) = gpu_plan({"options": EngineOptions(numa_bind=True)}, version="0.19.1").groups
    assert "--numa-bind" not in group.primary.argv
    assert [n.code for n in group.notes] == ["OPTION_NOT_IN_RELEASE"]
    assert "--numa-bind" in group.notes[0].message


@pytest.mark.parametrize(("version", "as_flag"), [("0.12.0", False), ("0.13.0", True)])
def test_attention_backend_was_an_environment_variable(gpu_plan, version, as_flag):
    options = EngineOptions(attention_backend="FLASHMLA")
    node = gpu_plan({"options": options}, version=version).nodes[0]
    assert ("--attention-backend" in node.argv) == as_flag
    assert ("VLLM_ATTENTION_BACKEND" in node.env) == (not as_flag)


def test_dual_batch_overlap_with_its_thresholds(gpu_plan):
    options = EngineOptions(enable_dbo=True, dbo_decode_token_threshold=16)
    argv = gpu_plan({"options": options}).nodes[0].argv
    assert "--enable-dbo" in argv
    assert value(argv, "--dbo-decode-token-threshold") == "16"


def test_decode_captures_decode_graphs_alone_unless_told_otherwise(gpu_plan):
    pair = [{"name": r, "role": r} for r in ("prefill", "decode")]
    prefill, decode = gpu_plan(*pair).groups
    assert "--compilation-config" not in prefill.primary.argv
    config = json.loads(value(decode.primary.argv, "--compilation-config"))
    assert config == {"cudagraph_mode": "FULL_DECODE_ONLY"}
    pair[1]["options"] = EngineOptions(compilation_config={"cudagraph_mode": "PIECEWISE"})
    told = gpu_plan(*pair).groups[1].primary.argv
    assert json.loads(value(told, "--compilation-config")) == {"cudagraph_mode": "PIECEWISE"}


def test_a_streamed_model_is_read_from_s3_and_keeps_its_name(gpu_plan):
    options = EngineOptions(load_format="runai_streamer")
    argv = gpu_plan({"options": options}).nodes[0].argv
    assert argv[:3] == ("vllm", "serve", "s3://models/m")
    assert value(argv, "--served-model-name") == "deepseek-ai/DeepSeek-V3-0324"


def test_a_venv_runs_the_interpreter_that_has_vllm(gpu_plan):
    argv = gpu_plan(vllm={"runtime": "venv"}).nodes[0].argv
    assert argv[:4] == ("/opt/vllm/bin/python", "-m", "vllm.entrypoints.cli.main", "serve")


# --- EFA -----------------------------------------------------------------------------------


def test_nodes_on_efa_name_its_provider_and_their_own_address(gpu_plan):
    env = gpu_plan({"nodes": 2}).nodes[1].env
    assert env["VLLM_HOST_IP"] == "${SERVE_0_1_ADDRESS}"
    assert env["GLOO_SOCKET_IFNAME"] == env["NCCL_SOCKET_IFNAME"] == "${PRIMARY_INTERFACE}"
    assert env["FI_PROVIDER"] == "efa"
    assert env["NCCL_NET_PLUGIN"] == "ofi"


def test_one_node_that_serves_alone_needs_nothing_of_efa(gpu_plan):
    env = gpu_plan().nodes[0].env
    assert not [key for key in env if key.startswith(("FI_", "NCCL_"))]


@pytest.mark.parametrize(("version", "has"), [("0.13.0", False), ("0.14.1", True)])
def test_engines_get_longer_than_ten_minutes_to_start(gpu_plan, version, has):
    assert ("VLLM_ENGINE_READY_TIMEOUT_S" in gpu_plan(version=version).nodes[0].env) == has


# --- KV transfer ---------------------------------------------------------------------------

PAIR = ({"name": "prefill", "role": "prefill"}, {"name": "decode", "role": "decode"})


def transfer_of(plan, role: str) -> dict:
    node = next(n for n in plan.nodes if n.name.startswith(role))
    return json.loads(value(node.argv, "--kv-transfer-config"))


@pytest.mark.parametrize(("version", "has"), [("0.12.0", False), ("0.13.0", True)])
def test_failure_policy_stands_at_the_top_level_where_the_release_has_it(gpu_plan, version, has):
    config = transfer_of(gpu_plan(*PAIR, version=version), "decode")
    assert ("kv_load_failure_policy" in config) == has
    assert "kv_load_failure_policy" not in config["kv_connector_extra_config"]


def test_decode_recomputes_unless_its_kernels_take_256_tokens_a_step(gpu_plan):
    slow = transfer_of(gpu_plan(*PAIR), "decode")
    plain = [PAIR[0], PAIR[1] | {"all2all_backend": "allgather_reducescatter"}]
    assert slow["kv_load_failure_policy"] == "fail"
    assert transfer_of(gpu_plan(*plain), "decode")["kv_load_failure_policy"] == "recompute"


@pytest.mark.parametrize(
    ("instance_type", "backend"),
    [("p5en.48xlarge", "LIBFABRIC"), ("g6e.2xlarge", "UCX"), ("c7i.large", "UCX")],
)
def test_libfabric_on_efa_and_ucx_elsewhere(gpu_plan, instance_type, backend):
    pair = [side | {"instance_type": instance_type} for side in PAIR]
    plan = gpu_plan(*pair, version="0.32.0", model="Qwen/Qwen3-30B-A3B")
    assert transfer_of(plan, "prefill")["kv_connector_extra_config"]["backends"] == [backend]


@pytest.mark.parametrize(("version", "as_env"), [("0.21.0", True), ("0.22.1", False)])
def test_the_lease_was_an_environment_variable(gpu_plan, version, as_env):
    pair = [side | {"kv_transfer": KvTransferOptions(kv_lease_duration=120)} for side in PAIR]
    plan = gpu_plan(*pair, version=version)
    extra = transfer_of(plan, "prefill")["kv_connector_extra_config"]
    assert ("VLLM_NIXL_ABORT_REQUEST_TIMEOUT" in plan.nodes[0].env) == as_env
    assert ("kv_lease_duration" in extra) == (not as_env)


def test_every_node_of_a_transferring_group_has_its_own_side_channel_host(gpu_plan):
    sides = [side | {"nodes": 2} for side in PAIR]
    for node in gpu_plan(*sides).nodes:
        assert node.env["VLLM_NIXL_SIDE_CHANNEL_HOST"] == node.address
        assert "--kv-transfer-config" in node.argv


@pytest.mark.parametrize(
    ("version", "first", "ports"), [("0.11.0", 5557, 8), ("0.11.2", 5600, 4), ("0.33.0", 5600, 4)]
)
def test_side_channels_are_one_per_rank_and_in_0_11_0_one_per_gpu(gpu_plan, version, first, ports):
    pair = [side | {"tensor_parallel_size": 2} for side in PAIR]
    transfer = gpu_plan(*pair, version=version).groups[0].kv_transfer
    assert transfer.side_channel_ports == tuple(range(first, first + ports))


@pytest.mark.parametrize(("version", "has"), [("0.21.0", False), ("0.22.1", True)])
def test_cuda_virtual_memory_is_off_because_efa_cannot_register_it(gpu_plan, version, has):
    argv = gpu_plan(*PAIR, version=version).nodes[0].argv
    assert ("--no-enable-cumem-allocator" in argv) == has


def test_a_connector_that_the_release_lacks(gpu_plan):
    push = KvTransferOptions(kv_connector="NixlPushConnector")
    (prefill, _) = gpu_plan(PAIR[0] | {"kv_transfer": push}, PAIR[1], version="0.23.0").groups
    assert "KV_CONNECTOR_NOT_IN_RELEASE" in [note.code for note in prefill.notes]


@pytest.mark.parametrize(
    ("version", "missing"),
    [
        ("0.11.2", ["kv_load_failure_policy", "num_threads"]),
        ("0.12.0", ["kv_load_failure_policy"]),
        ("0.13.0", []),
    ],
)
def test_an_option_of_the_transfer_that_the_release_lacks_is_noted(gpu_plan, version, missing):
    asked = KvTransferOptions(kv_load_failure_policy="fail", num_threads=8)
    (prefill, _) = gpu_plan(PAIR[0] | {"kv_transfer": asked}, PAIR[1], version=version).groups
    code = "KV_TRANSFER_OPTION_NOT_IN_RELEASE"
    told = [note.message for note in prefill.notes if note.code == code]
    assert [name for name in missing for message in told if f" {name} " in message] == missing
    assert len(told) == len(missing)


# --- the router ----------------------------------------------------------------------------


def test_the_router_knows_every_primary_of_both_sides(gpu_plan):
    router = gpu_plan(PAIR[0], PAIR[1] | {"replicas": 2, "nodes": 2}).router
    words = list(router.argv)
    urls = [words[i + 1] for i, word in enumerate(words) if word == "--decode"]
    assert urls == ["http://${DECODE_0_0_ADDRESS}:8000", "http://${DECODE_1_0_ADDRESS}:8000"]
    assert words[words.index("--prefill") + 1] == "http://${PREFILL_0_0_ADDRESS}:8000"
    assert router.health_path == "/readiness"
    assert router.secret_env == {"OPENAI_API_KEY": "/moe-serving/dev/api-key"}


def test_the_router_has_a_url_for_every_rank_where_load_balancing_is_external(gpu_plan):
    router = gpu_plan(PAIR[0], PAIR[1] | {"load_balancing": "external"}).router
    assert router.argv.count("--decode") == 8
    assert "http://${DECODE_0_0_ADDRESS}:8007" in router.argv


def test_a_stack_that_serves_both_phases_needs_no_router(gpu_plan):
    assert gpu_plan().router is None


def test_every_flag_of_the_router_is_in_its_help(gpu_plan):
    help_text = (Path(__file__).parent / "data" / "vllm-router-help.txt").read_text()
    flags = {word for word in gpu_plan(*PAIR).router.argv if word.startswith("--")}
    assert flags
    assert [
        flag for flag in flags if f"{flag} " not in help_text and f"{flag}\n" not in help_text
    ] == []


# --- notes ---------------------------------------------------------------------------------


def test_kv_transfer_of_a_group_that_serves_both_phases_is_noted(gpu_plan):
    (group,) = gpu_plan({"kv_transfer": KvTransferOptions(backends=("UCX",))}).groups
    assert "--kv-transfer-config" not in group.primary.argv
    assert [note.code for note in group.notes] == ["KV_TRANSFER_UNUSED"]


def test_a_group_may_have_an_address_on_every_card_that_adds_ip_bandwidth(gpu_plan):
    asked = {"instance_type": "p6-b200.48xlarge", "network_interfaces": "ip-bandwidth"}
    (group,) = gpu_plan(asked).groups
    kinds = [nic.interface_type for nic in group.primary.network_interfaces]
    assert (kinds.count("interface"), kinds.count("efa-only")) == (8, 8)
    assert group.bandwidth.ip_gbps == 1600
