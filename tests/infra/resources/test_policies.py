from __future__ import annotations

import json
from fnmatch import fnmatchcase

import pytest

from infra.resources import policies

BUCKET = "arn:aws:s3:::moe-serving-dev-123456789012"
TOKEN = "arn:aws:ssm:us-east-1:123456789012:parameter/moe-serving/dev/agent-token"
KEY = "arn:aws:ssm:us-east-1:123456789012:parameter/moe-serving/dev/api-key"


def allows(document: str, action: str, resource: str) -> bool:
    """IAM's evaluation for documents without Deny and without conditions."""
    return any(
        any(fnmatchcase(action, a) for a in listed(s["Action"]))
        and any(fnmatchcase(resource, r) for r in listed(s["Resource"]))
        for s in json.loads(document)["Statement"]
        if s["Effect"] == "Allow"
    )


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


ALLOWED = [
    ("s3:GetObject", f"{BUCKET}/nodes/serve-0-1/assignment.json"),
    ("s3:GetObject", f"{BUCKET}/bootstrap/abc.pyz"),
    ("s3:GetObject", f"{BUCKET}/models/org/tiny/config.json"),
    ("s3:PutObject", f"{BUCKET}/nodes/serve-0-1/status.json"),
    ("ssm:GetParameters", TOKEN),
    ("ssm:UpdateInstanceInformation", "arn:aws:ec2:us-east-1:123456789012:instance/i-1"),
]
DENIED = [
    ("s3:GetObject", f"{BUCKET}/nodes/serve-0-0/assignment.json"),
    ("s3:GetObject", f"{BUCKET}/nodes/serve-0-10/assignment.json"),
    ("s3:GetObject", f"{BUCKET}/nodes/serve-0-0/status.json"),
    ("s3:GetObject", f"{BUCKET}/deployment.json"),
    ("s3:GetObject", "arn:aws:s3:::moe-serving-other-123456789012/models/x"),
    ("s3:PutObject", f"{BUCKET}/nodes/serve-0-1/assignment.json"),
    ("s3:PutObject", f"{BUCKET}/nodes/serve-0-0/status.json"),
    ("s3:PutObject", f"{BUCKET}/bootstrap/abc.pyz"),
    ("s3:PutObject", f"{BUCKET}/record.json"),
    ("s3:ListBucket", BUCKET),
    ("s3:DeleteObject", f"{BUCKET}/nodes/serve-0-1/status.json"),
    ("ssm:GetParameters", KEY),
    ("ssm:GetParameterHistory", TOKEN),
    ("ssm:PutParameter", TOKEN),
    ("ssm:SendCommand", "*"),
    ("ec2:RunInstances", "*"),
    ("iam:PassRole", "*"),
]


@pytest.mark.parametrize(("action", "resource"), ALLOWED)
def test_a_headless_node_may(action: str, resource: str):
    assert allows(policies.node(BUCKET, "serve-0-1", [TOKEN]), action, resource)


@pytest.mark.parametrize(("action", "resource"), DENIED)
def test_a_headless_node_may_not(action: str, resource: str):
    assert not allows(policies.node(BUCKET, "serve-0-1", [TOKEN]), action, resource)


def test_a_parameter_is_readable_once_it_is_named():
    assert allows(policies.node(BUCKET, "serve-0-0", [TOKEN, KEY]), "ssm:GetParameters", KEY)


def test_only_actions_without_resources_are_allowed_on_everything():
    statements = json.loads(policies.node(BUCKET, "serve-0-0", [TOKEN]))["Statement"]
    wide = [s["Action"] for s in statements if s["Resource"] == "*"]
    assert wide == [list(policies.SESSION_MANAGER_ACTIONS)]


def test_the_same_names_give_the_same_document():
    one, other = (policies.node(BUCKET, "n", order) for order in ([TOKEN, KEY], [KEY, TOKEN]))
    assert one == other


def test_requests_without_tls_are_denied_for_bucket_and_objects():
    (statement,) = json.loads(policies.tls_only(BUCKET))["Statement"]
    assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
    assert statement["Resource"] == [BUCKET, f"{BUCKET}/*"]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_only_ec2_takes_on_a_nodes_role():
    (statement,) = json.loads(policies.assumed_by_ec2())["Statement"]
    assert statement["Principal"] == {"Service": "ec2.amazonaws.com"}


PREFIX = "models/org/m/0a0a/"
STAGED = f"{BUCKET}/models/org/m/0a0a"


def staged(*, writes: bool, reads: bool = True) -> str:
    models = policies.Models(PREFIX, writes=writes)
    return policies.node(BUCKET, "serve-0-1", [TOKEN], weights=reads, models=models)


@pytest.mark.parametrize("key", ["/config.json", ".manifest.json", ".staging.json"])
def test_only_the_node_that_copies_weights_may_write_them(key: str):
    assert allows(staged(writes=True), "s3:PutObject", STAGED + key)
    assert not allows(staged(writes=False), "s3:PutObject", STAGED + key)


def test_it_may_not_write_another_models():
    for key in ("models/org/m/0b0b/config.json", "models/org/other/config.json", "nodes/x"):
        assert not allows(staged(writes=True), "s3:PutObject", f"{BUCKET}/{key}")


def test_all_others_may_read_and_list_them_and_a_gateway_that_copies_no_more_than_its_own():
    assert allows(staged(writes=False), "s3:GetObject", STAGED + ".manifest.json")
    gateway = staged(writes=True, reads=False)
    assert allows(gateway, "s3:GetObject", STAGED + "/config.json")
    assert not allows(gateway, "s3:GetObject", f"{BUCKET}/models/org/other/config.json")
    assert "s3:ListBucket" not in gateway


def test_compiled_kernels_are_read_by_all_and_left_by_primaries():
    reads = policies.node(BUCKET, "serve-0-1", [TOKEN], kernels="reads")
    writes = policies.node(BUCKET, "serve-0-0", [TOKEN], kernels="writes")
    entry = f"{BUCKET}/caches/vllm0.33.0-H100.tar.gz"
    assert allows(reads, "s3:GetObject", entry)
    assert not allows(reads, "s3:PutObject", entry)
    assert allows(writes, "s3:PutObject", entry)
    assert not allows(policies.node(BUCKET, "n", [TOKEN]), "s3:GetObject", entry)
