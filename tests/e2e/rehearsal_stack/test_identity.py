"""What a node's own credentials may do, tried by calling: tests/infra/resources/identity.toml."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from rehearsed import CHECKOUT, HEADLESS, PRIMARY, Rehearsed

from node_bootstrap.assignment import status_key

pytestmark = pytest.mark.e2e

TABLE = tomllib.loads((CHECKOUT / "tests/infra/resources/identity.toml").read_text())
NODE_OF = {"primary": PRIMARY, "headless": HEADLESS}
CASES = [(role, row) for row in TABLE["row"] if "call" in row for role in NODE_OF]
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
FOREIGN_BUCKET, FOREIGN_PARAMETER = "moe-serving-another-stack", "/moe-serving/another/agent-token"

CREDENTIALS = """
import json, urllib.request

METADATA = "http://169.254.169.254/latest/"
ask = urllib.request.Request(
    METADATA + "api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "600"}
)
token = {"X-aws-ec2-metadata-token": urllib.request.urlopen(ask, timeout=5).read().decode()}

def get(path):
    request = urllib.request.Request(METADATA + path, headers=token)
    return urllib.request.urlopen(request, timeout=5).read().decode()

role = get("meta-data/iam/security-credentials/").strip()
found = json.loads(get("meta-data/iam/security-credentials/" + role))
print(json.dumps({"role": role, **found}))
"""


@dataclass
class Identity:
    """A node's credentials, as its metadata service gave them to it; words: of the table."""

    session: dict[str, str]
    words: dict[str, str]
    endpoint: str
    region: str

    def call(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        service, operation = name.split(".")
        client = boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.session["AccessKeyId"],
            aws_secret_access_key=self.session["SecretAccessKey"],
            aws_session_token=self.session["Token"],
            config=Config(retries={"total_max_attempts": 1}),
        )
        return getattr(client, operation)(**filled(request, self.words))


def filled(value: Any, words: dict[str, str]) -> Any:
    """The table's placeholders filled in, at any depth; other braces stay."""
    if isinstance(value, dict):
        return {key: filled(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, words) for item in value]
    if isinstance(value, str):
        for name, word in words.items():
            value = value.replace(f"{{{name}}}", word)
    return value


@pytest.fixture(scope="module")
def another_stack(stack: Rehearsed) -> Iterator[None]:
    """A bucket and a secret of somebody else in the same account."""
    s3, ssm = stack.client("s3"), stack.client("ssm")
    s3.create_bucket(Bucket=FOREIGN_BUCKET)
    s3.put_object(Bucket=FOREIGN_BUCKET, Key="models/tiny/config.json", Body=b"{}")
    ssm.put_parameter(Name=FOREIGN_PARAMETER, Value="secret", Type="SecureString")
    yield
    ssm.delete_parameter(Name=FOREIGN_PARAMETER)
    s3.delete_object(Bucket=FOREIGN_BUCKET, Key="models/tiny/config.json")
    s3.delete_bucket(Bucket=FOREIGN_BUCKET)


@pytest.fixture(scope="module")
def identities(stack: Rehearsed, another_stack: None) -> dict[str, Identity]:
    """Role -> a node of it."""
    stack.wait_until_ready()
    keys, account = stack.tool_env, stack.client("sts").get_caller_identity()["Account"]
    roles = {
        r["RoleName"].rsplit("-", 1)[0]: r
        for r in stack.client("iam").list_roles(PathPrefix="/moe-serving/rehearsal/")["Roles"]
    }
    objects = stack.client("s3").list_objects_v2(Bucket=stack.bucket, Prefix="bootstrap/")
    found = {}
    for role, node in NODE_OF.items():
        other = HEADLESS if node == PRIMARY else PRIMARY
        session = json.loads(stack.inside(node, "/usr/bin/python3", "-c", CREDENTIALS))
        status = stack.client("s3").get_object(Bucket=stack.bucket, Key=status_key(node))
        words = {
            "me": node,
            "other": other,
            "other_role_arn": roles[other]["Arn"],
            "role": session["role"],
            "bucket": stack.bucket,
            "stack": "rehearsal",
            "account": account,
            "region": keys["AWS_REGION"],
            "archive": objects["Contents"][0]["Key"],
            "status": status["Body"].read().decode(),
            "model_bucket": stack.bucket,
            "model_prefix": "models/tiny-qwen3-moe/",
            "foreign_bucket": FOREIGN_BUCKET,
            "foreign_parameter": FOREIGN_PARAMETER,
            "instance": stack.instances()[node],
            "image": "ami-0123456789abcdef0",
        }
        found[role] = Identity(session, words, keys["AWS_ENDPOINT_URL"], keys["AWS_REGION"])
    return found


@pytest.mark.parametrize(
    ("role", "row"), CASES, ids=[f"{role}: {row['name']}" for role, row in CASES]
)
def test_a_nodes_own_credentials_may_what_the_table_allows_and_nothing_else(
    identities: dict[str, Identity], role: str, row: dict[str, Any]
) -> None:
    identity = identities[role]
    if role in row["allowed"]:
        # SSM names what it doesn't have in a list beside, instead of refusing.
        assert not identity.call(row["call"], row["request"]).get("InvalidParameters")
        return
    with pytest.raises(ClientError) as refused:
        identity.call(row["call"], row["request"])
    assert refused.value.response["Error"]["Code"] in DENIED


def test_the_credentials_are_those_of_the_nodes_own_role_and_session(
    stack: Rehearsed, identities: dict[str, Identity]
) -> None:
    for role, node in NODE_OF.items():
        me = identities[role].call("sts.get_caller_identity", {})["Arn"]
        assert me.endswith(f"{identities[role].session['role']}/{stack.instances()[node]}")
        assert f"/{node}-" in me


def test_the_metadata_service_answers_nobody_without_a_token(stack: Rehearsed) -> None:
    url = "http://169.254.169.254/latest/meta-data/iam/security-credentials/"
    code = stack.inside(PRIMARY, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url)
    assert code.strip() == "401"
