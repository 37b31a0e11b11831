"""A user who may do what `moe preflight` tries, and read: brings a stack up and takes it down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rehearsed import CHECKOUT, Rehearsed, client_of

from infra.preflight import actions

pytestmark = pytest.mark.nightly

STACK = "wide-ep"
READS = ["ec2:Describe*", "elasticloadbalancing:Describe*", "ssm:Describe*", "s3:ListAllMyBuckets"]
READS += [
    f"{service}:{verb}*" for service in ("s3", "iam", "ssm", "tag") for verb in ("Get", "List")
]


@pytest.fixture
def deployer(tmp_path: Path) -> Iterator[Rehearsed]:
    """A rehearsal whose keys are those of such a user, with a load balancer in its stack."""
    folder = tmp_path / "stacks"
    folder.mkdir()
    data = yaml.safe_load((CHECKOUT / f"Pulumi.{STACK}.yaml").read_text())
    inside = {"load_balancer": True, "allowed_cidrs": ["10.42.0.0/16"]}
    data["config"]["moe-serving:endpoint"] = inside
    (folder / f"Pulumi.{STACK}.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    found = Rehearsed(tmp_path / "home", folder)
    found.run("account-start")
    file = found.root / "account/endpoint.json"
    admin = file.read_text()
    file.write_text(json.dumps(json.loads(admin) | keys_of_a_user(json.loads(admin))))
    try:
        yield found
    finally:
        if file.exists():
            file.write_text(admin)
        found.run("down", "--stack", STACK)


def keys_of_a_user(account: dict[str, str]) -> dict[str, str]:
    iam = client_of(account, "iam", account["region"])
    allowed = [*actions.of(actions.ACTIONS), *READS]
    statement = {"Effect": "Allow", "Action": allowed, "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.create_user(UserName="deployer")
    iam.put_user_policy(UserName="deployer", PolicyName="deploys", PolicyDocument=document)
    key = iam.create_access_key(UserName="deployer")["AccessKey"]
    return {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}


def test_what_preflight_tries_is_enough_for_up_and_down(deployer: Rehearsed) -> None:
    deployer.run("up", "--stack", STACK, "--no-boot")
    deployer.run("down", "--stack", STACK)
