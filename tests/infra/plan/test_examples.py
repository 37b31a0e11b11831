"""The example stacks: each planned whole, each for every release, and refused by no parser."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from infra import catalog, checks, model, sources
from infra.plan.parallelism import WAYS
from infra.plan.plan import Group, Plan, to_json
from infra.planning import make_plan
from tests.infra.examples import TINY, facts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infra.settings import Settings

EXAMPLES = ("single-node", "wide-ep", "pd", "p6-b200", "p6-b300", "cpu-smoke")


def settings_of(stack: str, version: str | None = None) -> Settings:
    source = sources.read_file(sources.stack_file(stack), sources.PROJECT)
    judged = sources.load(source, stack)
    if version is None:
        return judged
    return judged.model_copy(update={"vllm": judged.vllm.model_copy(update={"version": version})})


def plan_of(stack: str, version: str | None = None) -> Plan:
    settings = settings_of(stack, version)
    region = sources.read_file(sources.stack_file(stack), sources.PROJECT).region
    return make_plan(stack, settings, facts_of(settings), region)


def commands(plan: Plan) -> Iterator[tuple[Group, tuple[str, ...]]]:
    for group in plan.groups:
        for node in group.nodes:
            yield group, node.argv


@pytest.mark.parametrize("stack", EXAMPLES)
def test_example_stack(stack: str, snapshot):
    plan = plan_of(stack)
    assert to_json(plan, checks.run(plan)) == snapshot


@pytest.mark.parametrize("stack", EXAMPLES)
def test_checks_have_nothing_against_an_example(stack: str):
    found = [f for f in checks.run(plan_of(stack)) if f.severity is not checks.Severity.INFO]
    assert found == []


@pytest.mark.parametrize("version", catalog.release_versions())
@pytest.mark.parametrize("stack", EXAMPLES)
def test_every_flag_is_one_of_the_release(stack: str, version: str):
    release = catalog.release(version)
    for _, argv in commands(plan_of(stack, version)):
        for word, value in zip(argv, (*argv[1:], ""), strict=True):
            if word.startswith("--"):
                flag = release.flag(word)
                assert flag is not None, f"{word} is not in {version}"
                assert flag.choices is None or value in flag.choices


def test_documented_keys_are_there():
    document = json.loads(to_json(plan_of("pd"), checks.run(plan_of("pd"))))
    for group in document["groups"]:
        assert set(group["all2all_backend"]) == {"requested", "chosen", "reason"}
        assert {
            "weights_gib", "peak_activation_gib", "cuda_graph_gib", "non_torch_gib",
            "kv_cache_gib", "kv_cache_tokens", "items",
        } <= set(group["memory"])  # fmt: skip
        for node in group["nodes"]:
            assert {"name", "argv", "env", "network_interfaces", "software"} <= set(node)
            for nic in node["network_interfaces"]:
                assert set(nic) == {"network_card_index", "device_index", "interface_type"}
    assert document["cost"]["usd_per_hour"] == pytest.approx(3 * 63.296 + 0.1785)
    for finding in document["findings"]:
        assert set(finding) == {"code", "severity", "where", "message", "remedy"}


REAL = "0.32.0"
"""The one release whose parser can be had as a package for CPUs."""


@pytest.fixture(scope="module")
def ask():
    """Asks vLLM itself about command lines, with one of the scripts beside this file."""
    from rehearsal.image import vllm  # noqa: PLC0415 - needed by these tests alone

    python = vllm.python(vllm.ensure())

    def answers(script: str, lines: list[list[str]]) -> list[Any]:
        done = subprocess.run(
            [python, Path(__file__).with_name(script)],
            input=json.dumps(lines),
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])

    return answers


def after_serve(argv: tuple[str, ...]) -> list[str]:
    return list(argv[argv.index("serve") + 1 :])


def more_plans() -> dict[str, Plan]:
    """Example stacks with what the examples don't use: every mode, every optional flag."""
    changes: dict[str, dict[str, Any]] = {
        "hybrid": {"load_balancing": "hybrid"},
        "external": {"load_balancing": "external"},
        "spanning": {"tensor_parallel_size": 16, "eplb": None, "all2all_backend": "auto"},
        "one rank": {"load_balancing": "external", "data_parallel_size_local": 1},
        "options": {
            "enable_dbo": True, "dbo_decode_token_threshold": 16, "numa_bind": True,
            "attention_backend": "FLASHMLA", "moe_backend": "deep_gemm", "block_size": 64,
            "kv_cache_dtype": "fp8", "quantization": "fp8", "enable_ep_weight_filter": True,
            "expert_placement_strategy": "round_robin", "dtype": "bfloat16",
        },
    }  # fmt: skip
    settings = settings_of("wide-ep", REAL)
    facts = model.facts(settings.model, sources.PROJECT)
    group = settings.groups["serve"]
    return {
        name: make_plan(
            name,
            settings.model_copy(update={"groups": {"serve": group.model_copy(update=change)}}),
            facts,
        )
        for name, change in changes.items()
    }


@pytest.mark.e2e
def test_the_real_parser_takes_every_command(ask):
    plans = {stack: plan_of(stack, REAL) for stack in EXAMPLES} | more_plans()
    named = [
        (f"{name} {group.name}", after_serve(argv))
        for name, plan in plans.items()
        for group, argv in commands(plan)
    ]
    answers = ask("accept.py", [words for _, words in named])
    assert {name: said for (name, _), said in zip(named, answers, strict=True) if said} == {}


@pytest.mark.e2e
def test_the_real_parser_refuses_what_no_release_has(ask):
    lines = [["m", "--no-such-flag"], ["m", "--eplb-config", '{"no_such_field":1}'], ["m"]]
    unknown, field, fine = ask("accept.py", lines)
    assert "unrecognized arguments: --no-such-flag" in unknown
    assert field
    assert fine is None


NEEDS_GPUS = {
    "--enable-eplb": 0, "--eplb-config": 1, "--kv-transfer-config": 1, "--quantization": 1,
    "--kv-cache-dtype": 1, "--attention-backend": 1, "--moe-backend": 1, "--block-size": 1,
    "--load-format": 1, "--numa-bind": 0, "--enable-dbo": 0, "--dbo-decode-token-threshold": 1,
    "--max-model-len": 1,
}  # fmt: skip
"""Flags (and how many values) that vLLM's configuration refuses on a machine without a GPU, or
that the small model can't have."""


def without(words: list[str], flags: dict[str, int]) -> list[str]:
    kept: list[str] = []
    skip = 0
    for word in words:
        if word in flags:
            skip = flags[word] + 1
        if skip:
            skip -= 1
        else:
            kept.append(word)
    return kept


@pytest.mark.e2e
def test_vllm_understands_the_topology_as_the_plan_has_it(ask, tmp_path):
    config = TINY | {"model_type": "qwen3_moe", "num_attention_heads": 16, "head_dim": 8}
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 16}))
    plans = {s: plan_of(s, REAL) for s in ("wide-ep", "pd", "cpu-smoke")} | more_plans()
    del plans["external"]  # one process per port, each made by a supervisor when it runs
    asked = [(n, g, node) for n, p in plans.items() for g in p.groups for node in g.nodes]
    lines = []
    for _, group, node in asked:
        words = without(after_serve(node.argv), NEEDS_GPUS)
        words[0] = str(tmp_path)
        lines.append([word.replace(group.primary.address, "127.0.0.1") for word in words])
    for (name, group, node), found in zip(asked, ask("understood.py", lines), strict=True):
        wanted = {
            "tensor_parallel_size": group.tensor_parallel_size,
            "data_parallel_size": group.data_parallel_size,
            "data_parallel_size_local": group.data_parallel_size_local,
            "first_rank": node.first_rank,
            "hybrid": group.load_balancing == "hybrid",
            "external": group.load_balancing == "external",
            "nodes_of_a_rank": group.tensor_parallel_nodes,
            "enable_expert_parallel": group.enable_expert_parallel,
        }
        assert found == wanted, f"{name} {node.name}"


def test_the_documentation_names_every_key_of_the_document():
    page = (sources.PROJECT / "docs" / "plan.md").read_text()
    document = json.loads(to_json(plan_of("pd")))
    group = document["groups"][0]
    parts = (document, document["cost"], group, group["memory"], group["nodes"][0])
    keys = {key for part in parts for key in part}
    told = {word.removesuffix("[]") for word in re.findall(r"`([a-z0-9_]+(?:\[\])?)`", page)}
    minor = {"free_at_start_gib", "kv_bytes_per_token", "kv_block_tokens", "peak_phase"}
    assert sorted(keys - told - minor - {"full_length_requests"}) == []


def test_the_documentation_has_the_table_of_parallelism():
    page = (sources.PROJECT / "docs" / "plan.md").read_text()
    for row in WAYS:
        assert f"| `{row.mode}`: {row.name} | {row.use_when} | {row.trade_off} |" in page


@pytest.mark.parametrize(("stack", "named"), [("pd", True), ("wide-ep", False)])
def test_groups_that_hand_kv_over_name_its_registration(stack: str, named: bool):  # noqa: FBT001
    for group in plan_of(stack).groups:
        assert group.memory is not None
        items = {item.name: item.gib for item in group.memory.items}
        assert ("NIXL registration, in place" in items) == named
