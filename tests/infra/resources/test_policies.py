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
