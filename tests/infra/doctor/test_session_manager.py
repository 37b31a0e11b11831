"""Which nodes Session Manager knows, asked of the rehearsal's account."""

from __future__ import annotations

import itertools
import json
import os

import boto3
import pytest

from infra.doctor.session_manager import note
from infra.names import STACK_TAG
from infra.preflight.image import DEBIAN_PARAMETER, GPU_PARAMETER
from infra.resources.policies import SESSION_MANAGER_ACTIONS, assumed_by_ec2
from rehearsal.driver import account_process
from rehearsal.paths import Home

REGION = "us-east-1"
STACKS = itertools.count()


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """The administrator of an account that boots nothing."""
    home = Home(tmp_path_factory.mktemp("account"))
    endpoint = account_process.start(home, REGION)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
            patch.delenv(name, raising=False)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, os.devnull)
        patch.setenv("AWS_ENDPOINT_URL", endpoint.url)
        yield boto3.Session(endpoint.access_key_id, endpoint.secret_access_key, region_name=REGION)
    account_process.stop(home)


@pytest.fixture(scope="module")
def subnet(session):
    ec2 = session.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
    place = {"VpcId": vpc, "CidrBlock": "10.20.0.0/24", "AvailabilityZone": f"{REGION}a"}
    return ec2.create_subnet(**place)["Subnet"]["SubnetId"]


def statement(effect: str, *actions: str) -> str:
    told = {"Effect": effect, "Action": list(actions), "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [told]})


@pytest.fixture
def stack():
    return f"stack-{next(STACKS)}"


@pytest.fixture
def node(session, subnet, stack):
    """A running node of the stack, of one image, whose role may do these things."""
    ec2, iam, ssm = session.client("ec2"), session.client("iam"), session.client("ssm")

    def run(name: str, parameter: str, *actions: str) -> str:
        role = f"{stack}-{name}"
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=assumed_by_ec2())
        allowed = statement("Allow", *(actions or ("s3:GetObject",)))
        iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=allowed)
        iam.create_instance_profile(InstanceProfileName=role)
        iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
        tags = [{"Key": STACK_TAG, "Value": stack}, {"Key": "Name", "Value": name}]
        made = ec2.run_instances(
            ImageId=ssm.get_parameter(Name=parameter)["Parameter"]["Value"],
            InstanceType="c7i.large",
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet,
            IamInstanceProfile={"Name": role},
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )["Instances"][0]["InstanceId"]
        wait = {"Delay": 1, "MaxAttempts": 20}
        ec2.get_waiter("instance_running").wait(InstanceIds=[made], WaiterConfig=wait)
        return made

    return run


def test_nodes_with_the_agent_and_the_right_to_register_are_known(session, stack, node):
    node("serve-0-0", GPU_PARAMETER, *SESSION_MANAGER_ACTIONS)
    assert note(session, stack) == ""


def test_a_node_that_may_not_register_is_named_with_its_instance(session, stack, node):
    node("serve-0-0", GPU_PARAMETER, *SESSION_MANAGER_ACTIONS)
    unknown = node("serve-0-1", GPU_PARAMETER)
    told = note(session, stack)
    assert told.startswith(f"Session Manager doesn't know serve-0-1 ({unknown}): the commands")


def test_an_image_without_the_agent_is_named(session, stack, node):
    node("gateway", DEBIAN_PARAMETER, *SESSION_MANAGER_ACTIONS)
    assert "Debian's has none" in note(session, stack)


def test_a_stack_without_nodes_has_nothing_to_say(session, stack):
    assert note(session, stack) == ""


@pytest.mark.parametrize("action", ["ssm:DescribeInstanceInformation", "ec2:DescribeInstances"])
def test_a_missing_permission_is_named(session, stack, node, action):
    node("serve-0-0", GPU_PARAMETER, *SESSION_MANAGER_ACTIONS)
    iam = session.client("iam")
    iam.create_user(UserName=stack)
    for name, policy in (("all", statement("Allow", "*")), ("but", statement("Deny", action))):
        iam.put_user_policy(UserName=stack, PolicyName=name, PolicyDocument=policy)
    key = iam.create_access_key(UserName=stack)["AccessKey"]
    reader = boto3.Session(key["AccessKeyId"], key["SecretAccessKey"], region_name=REGION)
    assert f"was not asked: {action} is not allowed" in note(reader, stack)
