from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MOE = Path(sys.executable).with_name("moe")


def test_table_names_groups_nodes_and_reasons(moe, stack_file):
    shown = moe("plan", "-f", str(stack_file), "--stack", "dev")
    assert shown.exit_code == 0
    for part in ("serve-0", "serve-0-1", "headless", "EP 2", "on CPU vLLM has no other backend"):
        assert part in " ".join(shown.stdout.split())


def test_json_is_the_plan(moe, stack_file):
    document = json.loads(moe("plan", "-f", str(stack_file), "--stack", "dev", "--json").stdout)
    assert document["stack"] == "dev"
    assert [n["name"] for n in document["groups"][0]["nodes"]] == ["serve-0-0", "serve-0-1"]


def test_commands_run_in_a_shell_as_printed(moe, stack_file, tmp_path):
    text = moe("plan", "-f", str(stack_file), "--commands").stdout
    shell = "\n".join(
        line.replace("/opt/vllm/bin/python", 'printf "%s\\n"') for line in text.splitlines()
    ).replace("_ADDRESS=  #", "_ADDRESS=10.1.2.3  #")
    done = subprocess.run(["sh", "-eu", "-c", shell], capture_output=True, text=True, check=True)
    words = done.stdout.split("\n")
    assert words.count("--headless") == 1
    assert words[words.index("--data-parallel-address") + 1] == "10.1.2.3"
    assert words.count("vllm.entrypoints.cli.main") == 2


def test_user_data_of_a_node(moe, stack_file):
    shown = moe("plan", "-f", str(stack_file), "--stack", "dev", "--user-data", "serve-0-1")
    assert shown.stdout.startswith("#cloud-config\n")
    assert "moe-serving-dev-" in shown.stdout


def test_user_data_of_a_node_that_is_not_planned(moe, stack_file):
    shown = moe("plan", "-f", str(stack_file), "--user-data", "serve-0-9")
    assert shown.exit_code == 2
    assert "no such node; the plan has serve-0-0, serve-0-1" in shown.output


def test_faults_are_sentences_and_no_traceback(moe, stack_file):
    stack_file.write_text(stack_file.read_text().replace("nodes: 2", "nodes: 0, tp: 2"))
    shown = moe("plan", "-f", str(stack_file))
    assert shown.exit_code == 2
    assert "2 faults" in shown.output
    assert "Traceback" not in shown.output


def test_imports_neither_pulumi_nor_boto3(stack_file):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(MOE), "plan", "-f", str(stack_file), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "infra.plan.plan" in imported
    assert not {"pulumi", "boto3", "botocore"} & imported


def test_a_model_elsewhere_is_planned_from_its_config_json(moe, tmp_path):
    settings = tmp_path / "own.yaml"
    settings.write_text(
        "model: {name: org/own, source: hf}\n"
        "groups: {serve: {instance_type: p5.48xlarge, max_model_len: 4096}}\n"
    )
    without = moe("plan", "-f", str(settings))
    assert without.exit_code == 2
    assert "give its config.json as model.config" in without.output
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {
                "architectures": ["Qwen3MoeForCausalLM"],
                "hidden_size": 2048,
                "num_hidden_layers": 48,
                "num_attention_heads": 32,
                "num_key_value_heads": 4,
                "head_dim": 128,
                "vocab_size": 151936,
                "max_position_embeddings": 40960,
                "moe_intermediate_size": 768,
                "num_experts": 128,
                "num_experts_per_tok": 8,
            }
        )
    )
    shown = moe("plan", "-f", str(settings), "--model-config", str(config), "--json")
    (group,) = json.loads(shown.stdout)["groups"]
    assert group["memory"]["kv_cache_tokens"] > 0
    assert group["memory"]["problems"] == []


def test_commands_of_a_prefill_decode_stack_end_with_the_router(moe):
    text = moe("plan", "--stack", "pd", "--commands").stdout
    router = text.partition("# gateway: the router")[2]
    assert '--prefill "http://${PREFILL_0_0_ADDRESS}:8000"' in router
    assert "DECODE_1_0_ADDRESS=  # address of decode-1-0" in router


def test_findings_are_in_the_document_and_the_table(moe):
    document = json.loads(moe("plan", "--stack", "wide-ep", "--json").stdout)
    codes = [finding["code"] for finding in document["findings"]]
    assert "QUOTAS_NEEDED" in codes
    assert "QUOTAS_NEEDED" in moe("plan", "--stack", "wide-ep").stdout


def test_svg_is_written_to_the_file(moe, tmp_path):
    file = tmp_path / "plan.svg"
    done = moe("plan", "--stack", "pd", "--svg", str(file))
    assert done.exit_code == 0
    assert "wrote" in done.output
    assert file.read_text().startswith("<svg ")


def test_svg_that_can_not_be_written_is_a_sentence(moe, tmp_path):
    done = moe("plan", "--stack", "pd", "--svg", str(tmp_path / "none" / "plan.svg"))
    assert done.exit_code == 2
    assert "No such file or directory" in done.output


def test_table_is_plain_text_where_there_is_no_terminal(moe):
    shown = moe("plan", "--stack", "wide-ep").stdout
    assert "\x1b" not in shown
    assert "vllm/vllm-openai:v0.33.0-efa" in shown


def test_findings_come_by_severity_the_worst_first(moe, tmp_path):
    settings = tmp_path / "large.yaml"
    settings.write_text(
        "model: {name: deepseek-ai/DeepSeek-V3-0324, source: 's3://models/m'}\n"
        "groups: {serve: {instance_type: p5en.48xlarge, nodes: 64}}\n"
    )
    shown = moe("plan", "-f", str(settings)).stdout
    assert 0 < shown.index("\nErrors (") < shown.index("\nNotes (")


def test_each_block_of_commands_begins_with_node_and_machine(moe):
    lines = moe("plan", "--stack", "wide-ep", "--commands").stdout.splitlines()
    heads = [line for line in lines if line.startswith("# ")]
    assert heads == [
        "# serve-0-0: primary of serve-0, p5en.48xlarge, in vllm/vllm-openai:v0.33.0-efa",
        "# serve-0-1: headless of serve-0, p5en.48xlarge, in vllm/vllm-openai:v0.33.0-efa",
    ]


def test_an_environment_of_the_settings_reaches_the_shell_as_it_is(moe, tmp_path, stack_file):
    odd = "a \"b\" $HOME `c` \\ 'd' "
    text = stack_file.read_text().replace("dtype: float32", f"env: {{ODD: {json.dumps(odd)}}}")
    stack_file.write_text(text)
    printed = moe("plan", "-f", str(stack_file), "--commands").stdout
    shell = printed.replace("/opt/vllm/bin/python", "printenv ODD #")
    blocks = shell.split("\n\n")
    done = subprocess.run(["sh", "-c", blocks[0]], capture_output=True, text=True, check=False)
    assert done.stdout == odd + "\n"


@pytest.mark.parametrize(
    "odd",
    [
        "tcp://${SERVE_0_0_ADDRESS}:5557 'said' \"twice\" `c` \\ $HOME",
        "it's ${SERVE_0_0_ADDRESS}",
        '"${SERVE_0_0_ADDRESS}"',
    ],
)
@pytest.mark.parametrize("place", ["value", "joined"])
def test_a_value_with_an_address_and_quotes_is_one_word_with_the_address_in_it(
    moe, tmp_path, stack_file, odd, place
):
    words = ["--kv-events-config", odd] if place == "value" else [f"--kv-events-config={odd}"]
    text = stack_file.read_text().replace("dtype: float32", f"extra_args: {json.dumps(words)}")
    stack_file.write_text(text)
    printed = moe("plan", "-f", str(stack_file), "--commands").stdout
    block = printed.split("\n\n")[0].replace("_ADDRESS=  #", "_ADDRESS=10.1.2.3  #")
    shell = block.replace("/opt/vllm/bin/python", "printf '%s\\n'")
    done = subprocess.run(["sh", "-eu", "-c", shell], capture_output=True, text=True, check=True)
    shown = done.stdout.split("\n")
    given = words[-1].replace("${SERVE_0_0_ADDRESS}", "10.1.2.3")
    assert given in shown
