"""Who may hand a role to an instance, and what a simulation of policies says."""

from __future__ import annotations

import json

import pytest

from rehearsal.account.iam.simulate import results

ROLE = "arn:aws:iam::123456789012:role/nodes/pass-me"


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action, resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


LAUNCH = allow("ec2:*")
PASS = allow(
    "iam:PassRole", ROLE, Condition={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
)


@pytest.fixture(scope="module")
def launchers(account, site):
    """EC2 clients of a user who may pass the role, and of one who may only launch."""
    iam = account.client("iam")
    trust = {
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"Service": "ec2.amazonaws.com"},
    }
    iam.create_role(RoleName="pass-me", Path="/nodes/", AssumeRolePolicyDocument=document(trust))
    iam.create_instance_profile(InstanceProfileName="pass-me")
    iam.add_role_to_instance_profile(InstanceProfileName="pass-me", RoleName="pass-me")
    site.ec2.create_launch_template(
        LaunchTemplateName="pass-me",
        LaunchTemplateData={
            "ImageId": site.image,
            "InstanceType": "m7i.large",
            "IamInstanceProfile": {"Name": "pass-me"},
            "NetworkInterfaces": [{"DeviceIndex": 0, "SubnetId": site.subnet}],
        },
    )
    clients = {}
    for name, policy in (("passes", document(LAUNCH, PASS)), ("launches", document(LAUNCH))):
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        clients[name] = account.client(
            "ec2",
            {
                "aws_access_key_id": key["AccessKeyId"],
                "aws_secret_access_key": key["SecretAccessKey"],
            },
        )
    return clients


@pytest.mark.parametrize("way", ["in the request", "in a launch template"])
@pytest.mark.parametrize(
    "outcome", [("passes", "DryRunOperation"), ("launches", "UnauthorizedOperation")]
)
def test_a_launch_with_a_profile_needs_the_right_to_pass_its_role(
    launchers, site, refusal, way, outcome
):
    who, code = outcome
    request = {"LaunchTemplate": {"LaunchTemplateName": "pass-me"}}
    if way == "in the request":
        request = {
            "ImageId": site.image,
            "InstanceType": "m7i.large",
            "SubnetId": site.subnet,
            "IamInstanceProfile": {"Name": "pass-me"},
        }
    run = launchers[who].run_instances
    assert refusal(lambda: run(**request, MinCount=1, MaxCount=1, DryRun=True)) == code


def test_a_simulation_answers_as_the_account_decides(account, launchers):
    iam = account.client("iam")
    found = iam.simulate_principal_policy(
        PolicySourceArn="arn:aws:iam::123456789012:user/passes",
        ActionNames=["ec2:RunInstances", "s3:GetObject", "iam:PassRole"],
        ResourceArns=[ROLE],
    )["EvaluationResults"]
    said = {r["EvalActionName"]: r["EvalDecision"] for r in found}
    assert said == {
        "ec2:RunInstances": "allowed",
        "s3:GetObject": "implicitDeny",
        "iam:PassRole": "implicitDeny",
    }
    assert found[2]["MissingContextValues"] == ["iam:PassedToService"]


def test_a_simulation_with_the_missing_value_decides():
    context = {"iam:passedtoservice": ["ec2.amazonaws.com"]}
    (found,) = results([PASS], ["iam:PassRole"], [ROLE], context)
    assert found["EvalDecision"] == "allowed"
    assert found["MissingContextValues"] == []


def test_a_simulation_tells_an_explicit_denial():
    deny = {**allow("s3:*"), "Effect": "Deny"}
    (found,) = results([allow("*"), deny], ["s3:GetObject"], ["*"], {})
    assert found["EvalDecision"] == "explicitDeny"
