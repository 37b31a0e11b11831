"""The real Pulumi engine, a program with every resource type, the rehearsal's own account.

Marked e2e: needs the built engine, takes minutes on two cores; nothing is booted.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from rehearsal import engine as pulumi_engine
from rehearsal.paths import CHECKOUT, Home
from rehearsal.provider import install

pytestmark = pytest.mark.e2e
PROGRAM = Path(__file__).with_name("program.py")
PROJECT = """\
name: everything
runtime: {{name: python, options: {{virtualenv: {venv}}}}}
"""


@dataclass(frozen=True)
class Stack:
    folder: Path
    environment: dict[str, str]

    def pulumi(self, *arguments: str, fails: bool = False) -> str:
        done = subprocess.run(
            ["pulumi", *arguments, "--non-interactive"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def config(self, **values: str) -> None:
        for key, value in values.items():
            self.pulumi("config", "set", key.replace("__", ":"), value)

    def up(self, *arguments: str, fails: bool = False) -> str:
        return self.pulumi("up", "--yes", "--skip-preview", *arguments, fails=fails)

    def outputs(self) -> dict:
        text = self.pulumi("stack", "output", "--json")
        return json.loads(text[: text.rindex("}") + 1])

    def resources(self) -> list[dict]:
        exported = json.loads(self.pulumi("stack", "export"))
        return exported["deployment"].get("resources", [])

    def of_type(self, end: str) -> list[dict]:
        return [resource for resource in self.resources() if resource["type"].endswith(end)]

    def client(self, service: str):
        return boto3.client(
            service,
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            region_name=self.environment["AWS_REGION"],
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return Home(tmp_path_factory.mktemp("rehearsal"))


@pytest.fixture(scope="module")
def account(home):
    home.account.mkdir(parents=True)
    with (home.account / "out").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "rehearsal.account", "--home", str(home.root)],
            stdout=log,
            stderr=log,
            cwd=CHECKOUT,
        )
    until = time.monotonic() + 60
    while True:
        endpoint = pulumi_engine.read_endpoint(home)
        try:
            assert endpoint
            health = f"{endpoint.url}/_rehearsal/health"
            urllib.request.urlopen(health, timeout=2).close()
            break
        except (OSError, AssertionError):
            assert time.monotonic() < until, (home.account / "out").read_text()
            time.sleep(0.2)
    yield endpoint
    process.send_signal(signal.SIGTERM)
    process.wait(30)


@pytest.fixture(scope="module")
def stack(home, account, tmp_path_factory):
    install(home.pulumi_home, Path(sys.executable))
    given = pulumi_engine.environment(home, account, pulumi_engine.ensure())
    environment = pulumi_engine.for_child(os.environ, {**given, "TERM": "dumb"})
    folder = tmp_path_factory.mktemp("program")
    shutil.copy(PROGRAM, folder / "__main__.py")
    (folder / "Pulumi.yaml").write_text(PROJECT.format(venv=CHECKOUT / ".venv"))
    made = Stack(folder, environment)
    made.pulumi("stack", "init", "dev")
    made.config(aws__region=account.region)
    made.pulumi("config", "set", "--path", "aws:defaultTags.tags.stack", "dev")
    return made


def test_the_whole_life_of_a_stack(stack):
    """One long story, since each step needs the one before it."""
    preview_makes_nothing(stack)
    up_makes_everything(stack)
    nothing_changes_without_a_change(stack)
    secrets_stay_out_of_the_state(stack)
    new_user_data_replaces_the_nodes(stack)
    drift_is_seen_and_repaired(stack)
    a_failed_node_leaves_the_others(stack)
    a_found_bucket_is_imported(stack)
    destroy_leaves_nothing(stack)


def preview_makes_nothing(stack):
    text = stack.pulumi("preview")
    assert "+ aws:ec2:Instance node-0 create" in " ".join(text.split())
    assert (
        stack.client("ec2").describe_vpcs(Filters=[{"Name": "cidr", "Values": ["10.9.0.0/16"]}])[
            "Vpcs"
        ]
        == []
    )


def up_makes_everything(stack):
    stack.up()
    outputs = stack.outputs()
    assert outputs["account"] == "123456789012"
    assert outputs["cards"] == 32
    assert outputs["offered"] is True
    assert outputs["token"] == "[secret]"
    assert outputs["default_tags"] == {"stack": "dev"}
    assert outputs["address"].startswith("10.9.1.")
    group = stack.client("ec2").describe_security_groups(GroupIds=[outputs["group"]])
    assert len(group["SecurityGroups"][0]["IpPermissionsEgress"]) == 1
    nodes = stack.of_type("instance:Instance")
    assert {node["outputs"]["instanceState"] for node in nodes} == {"running"}
    assert outputs["address"] in {node["outputs"]["privateIp"] for node in nodes}


def nothing_changes_without_a_change(stack):
    stack.pulumi("preview", "--expect-no-changes", "--diff")
    stack.pulumi("refresh", "--yes", "--expect-no-changes", "--diff")
    stack.pulumi("preview", "--expect-no-changes", "--diff")


def secrets_stay_out_of_the_state(stack):
    assert "tOpSeCrEt" not in json.dumps(stack.resources())


def new_user_data_replaces_the_nodes(stack):
    before = {node["id"] for node in stack.of_type("instance:Instance")}
    stack.config(greeting="good day")
    preview = " ".join(stack.pulumi("preview").split())
    assert "+- aws:ec2:Instance node-0 replace" in preview
    assert "~ aws:ec2:LaunchTemplate node-0 update" in preview
    assert "ssm:Parameter" not in preview
    stack.up()
    after = {node["id"] for node in stack.of_type("instance:Instance")}
    assert not before & after
    for template in stack.of_type("launchTemplate:LaunchTemplate"):
        assert template["outputs"]["latestVersion"] == 2


def drift_is_seen_and_repaired(stack):
    ec2, vpc = stack.client("ec2"), stack.outputs()["vpc"]
    node = stack.of_type("instance:Instance")[0]["id"]
    ec2.terminate_instances(InstanceIds=[node])
    ec2.create_tags(Resources=[vpc], Tags=[{"Key": "stack", "Value": "drifted"}])
    seen = stack.pulumi("refresh", "--yes", "--diff")
    assert '"dev" => "drifted"' in seen
    assert node not in {made["id"] for made in stack.of_type("instance:Instance")}
    stack.up()
    assert len(stack.of_type("instance:Instance")) == 2
    assert stack.outputs()["default_tags"] == {"stack": "dev"}
    stack.pulumi("preview", "--expect-no-changes", "--diff")


def a_failed_node_leaves_the_others(stack):
    stack.config(nodes="3", image="ami-00000000000000000")
    failure = stack.up("--target", "**node-2**", "--target-dependents", fails=True)
    assert "InvalidAMIID.NotFound" in failure
    assert len(stack.of_type("networkInterface:NetworkInterface")) == 3
    assert len(stack.of_type("instance:Instance")) == 2
    stack.pulumi("config", "rm", "image")
    stack.up()
    assert len(stack.of_type("instance:Instance")) == 3


def a_found_bucket_is_imported(stack):
    stack.client("s3").create_bucket(Bucket="found-elsewhere")
    stack.pulumi(
        "import", "aws:s3/bucket:Bucket", "found", "found-elsewhere",
        "--yes", "--generate-code=false", "--protect=false",
    )  # fmt: skip
    assert "found-elsewhere" in {bucket["id"] for bucket in stack.of_type("bucket:Bucket")}


def destroy_leaves_nothing(stack):
    bucket = stack.outputs()["bucket"]
    stack.client("s3").put_object(Bucket=bucket, Key="left/by/a/node", Body=b"x")
    stack.pulumi("destroy", "--yes", "--skip-preview")
    assert stack.resources() == []
    left = stack.client("resourcegroupstaggingapi").get_resources(
        TagFilters=[{"Key": "stack", "Values": ["dev"]}]
    )["ResourceTagMappingList"]
    # AWS shows these for an hour after they ended
    ended = (":instance/", ":natgateway/")
    names = [entry["ResourceARN"] for entry in left]
    assert [name for name in names if not any(kind in name for kind in ended)] == []
    roles = [role["RoleName"] for role in stack.client("iam").list_roles()["Roles"]]
    assert not [name for name in roles if name.startswith("node-")]
