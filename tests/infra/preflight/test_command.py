"""`moe preflight` on an account."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from infra.cli.app import app

SETTINGS = """\
config:
  aws:region: us-east-1
  moe-serving:model: {name: tiny, source: tiny}
  moe-serving:groups:
    serve: {instance_type: c7i.large, nodes: 2, dtype: float32}
"""


@pytest.fixture
def moe(endpoint, monkeypatch, tmp_path):
    """Runs `moe preflight` with a settings file; returns what it printed and its exit status."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", endpoint.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", endpoint.secret_access_key)
    (tmp_path / "tiny").mkdir()
    config = {"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8}
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(config))

    def run(*options: str, more: str = ""):
        path = tmp_path / "Pulumi.dev.yaml"
        path.write_text(SETTINGS + more)
        return CliRunner().invoke(app, ["preflight", "dev", "-f", str(path), *options])

    return run


def test_prints_a_table_with_a_sentence_for_each_check(moe):
    shown = moe()
    assert shown.exit_code == 0
    text = " ".join(shown.stdout.split())
    for part in ("PASS", "CREDENTIALS", "TYPE_OFFERED", "us-east-1 is enabled", "dev: "):
        assert part in text


def test_a_failure_is_the_exit_status_and_has_a_remedy(moe):
    shown = moe(more="  moe-serving:ami: ami-0123456789abcdef0\n")
    assert shown.exit_code == 1
    text = " ".join(shown.stdout.split())
    assert "has no image ami-0123456789abcdef0" in text
    assert "→ moe-serving:ami: set ami to one of this region" in text


def test_a_code_is_explained():
    shown = CliRunner().invoke(app, ["explain", "preflight-ami"])
    assert shown.exit_code == 0
    assert "Permissions: ec2:DescribeImages, ssm:GetParameter" in shown.stdout


def test_a_code_that_is_not_there_names_those_that_are():
    shown = CliRunner().invoke(app, ["explain", "PREFLIGHT_MOON"])
    assert shown.exit_code == 2
    assert "PREFLIGHT_REGION" in shown.output


def test_json_is_one_object_for_each_result(moe):
    document = json.loads(moe("--json").stdout)
    assert {r["code"] for r in document} >= {"PREFLIGHT_CREDENTIALS", "PREFLIGHT_AMI"}
    assert set(document[0]) == {
        "code", "state", "where", "message", "remedy", "permission", "seconds",
    }  # fmt: skip


def test_settings_that_can_not_be_read_are_sentences_and_nothing_is_asked(moe):
    shown = moe(more="  moe-serving:capacity: {kind: free}\n")
    assert shown.exit_code == 2
    assert "moe-serving:capacity.kind" in shown.output


def test_a_role_is_given_by_its_arn(moe):
    shown = moe("--role", "deployer")
    assert shown.exit_code == 2
    assert "--role deployer: wanted the ARN of a user or role" in shown.output


def test_the_role_that_is_given_is_the_one_that_is_asked_about(moe):
    shown = moe("--role", "arn:aws:iam::123456789012:role/nobody", "--json")
    said = {r["code"]: r["message"] for r in json.loads(shown.stdout)}
    assert "has no arn:aws:iam::123456789012:role/nobody" in said["PREFLIGHT_ROLE"]


def test_the_profile_of_the_stack_is_whose_account_is_asked(moe, endpoint, monkeypatch, tmp_path):
    keys = f"aws_access_key_id={endpoint.access_key_id}\n"
    keys += f"aws_secret_access_key={endpoint.secret_access_key}\n"
    (tmp_path / "credentials").write_text(f"[work]\n{keys}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-another-account")
    assert moe().exit_code == 1
    shown = moe(more="  aws:profile: work\n")
    assert shown.exit_code == 0, shown.output
