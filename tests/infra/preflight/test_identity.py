from __future__ import annotations

import itertools
import json

import boto3
import pytest

from infra.preflight import identity, run
from infra.preflight.aws import Aws

NUMBERS = itertools.count()


def policy(*statements: dict):
    return {"Version": "2012-10-17", "Statement": list(statements)}


def test_a_region_of_aws_passes(result_of, asked):
    assert result_of("REGION", asked()).message == "us-east-1 is enabled"


def test_a_region_that_aws_does_not_have_fails(stubbed, asked):
    refusal = ("describe_regions", "InvalidParameterValue", "Invalid region name us-east-1")
    (verdict,) = identity._region(stubbed(ec2=[refusal]), asked())
    assert (verdict.state, verdict.message) == ("FAIL", "AWS has no region us-east-1")


def test_a_region_that_is_not_enabled_fails(result_of, asked, endpoint):
    keys = (endpoint.access_key_id, endpoint.secret_access_key)
    result = result_of("REGION", asked(), boto3.Session(*keys, region_name="ap-east-1"))
    assert (result.state, result.remedy) == ("FAIL", "enable the region")


def test_a_user_who_may_do_it_all_passes(result_of, asked):
    result = result_of("ROLE", asked())
    assert result.state == "PASS"
    assert "user/rehearsal-admin may do all" in result.message


def test_actions_that_are_not_allowed_fail_and_are_named(result_of, asked, without):
    result = result_of("ROLE", asked(), without("ec2:RunInstances", "s3:PutBucketPolicy"))
    assert result.state == "FAIL"
    assert "may not ec2:RunInstances, s3:PutBucketPolicy" in result.message


def test_rights_on_the_names_of_another_stack_are_none_on_this_ones(result_of, asked, user):
    session = user(
        {"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"},
        {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::moe-serving-prod-*"},
    )
    result = result_of("ROLE", asked(), session)
    assert (result.state, "s3:CreateBucket" in result.message) == ("FAIL", True)
    assert result_of("ROLE", asked(stack="prod"), session).state == "PASS"


def test_a_decision_that_hangs_on_conditions_is_a_warning(result_of, asked, user):
    tagged = {"StringEquals": {"aws:RequestTag/team": "serving"}}
    session = user(
        {"Effect": "Allow", "NotAction": "ec2:RunInstances", "Resource": "*"},
        {"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": "*", "Condition": tagged},
    )
    result = result_of("ROLE", asked(), session)
    assert (result.state, "ec2:RunInstances depends on" in result.message) == ("WARN", True)


@pytest.fixture
def deployer(admin):
    """The session of a role with a path, that may do everything but some actions."""
    iam, name = admin.client("iam"), f"deployer-{next(NUMBERS)}"
    account = {"AWS": "arn:aws:iam::123456789012:root"}
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": account}

    def make(*denied: str) -> boto3.Session:
        iam.create_role(
            RoleName=name, Path="/teams/", AssumeRolePolicyDocument=json.dumps(policy(trust))
        )
        allow = [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
        deny = [{"Effect": "Deny", "Action": list(denied), "Resource": "*"}] if denied else []
        document = json.dumps(policy(*allow, *deny))
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document)
        keys = admin.client("sts").assume_role(
            RoleArn=f"arn:aws:iam::123456789012:role/teams/{name}", RoleSessionName="me"
        )["Credentials"]
        return boto3.Session(
            keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], "us-east-1"
        )

    return make


def test_the_session_of_a_role_is_judged_by_the_role_with_its_path(result_of, asked, deployer):
    result = result_of("ROLE", asked(), deployer())
    assert result.state == "PASS"
    assert "arn:aws:iam::123456789012:role/teams/deployer-" in result.message


def test_a_role_that_can_not_be_looked_up_is_skipped(result_of, asked, deployer):
    result = result_of("ROLE", asked(), deployer("iam:GetRole"))
    assert (result.state, result.permission) == ("SKIPPED", "iam:GetRole")


@pytest.fixture
def reader(user):
    """A user who may ask about policies, and change nothing."""
    asks = ["iam:SimulatePrincipalPolicy", "iam:GetRole"]
    return user({"Effect": "Allow", "Action": asks, "Resource": "*"})


def role_arn(session: boto3.Session) -> str:
    name = session.client("sts").get_caller_identity()["Arn"].split("/")[1]
    return f"arn:aws:iam::123456789012:role/teams/{name}"


def role_verdict(session: boto3.Session, stack, deployer: str):
    (result,) = (r for r in run(session, stack, deployer=deployer) if r.code == "PREFLIGHT_ROLE")
    return result


def test_a_reader_is_told_what_the_role_that_deploys_may_do(reader, deployer, asked):
    result = role_verdict(reader, asked(), role_arn(deployer()))
    assert result.state == "PASS"
    assert "role/teams/deployer-" in result.message


def test_a_reader_is_told_what_the_role_that_deploys_lacks(reader, deployer, asked):
    result = role_verdict(reader, asked(), role_arn(deployer("ec2:RunInstances")))
    assert (result.state, "may not ec2:RunInstances" in result.message) == ("FAIL", True)


def test_a_role_that_deploys_and_is_not_there_fails(reader, asked):
    missing = "arn:aws:iam::123456789012:role/nobody"
    result = role_verdict(reader, asked(), missing)
    assert (result.state, result.message) == ("FAIL", f"account 123456789012 has no {missing}")


def test_the_root_user_needs_no_simulation(admin, asked):
    # The account has no keys of its root user.
    aws = Aws.of(admin, "123456789012", "arn:aws:iam::123456789012:root")
    (verdict,) = identity._role(aws, asked())
    assert verdict.state == "PASS"


def test_a_load_balancer_asks_for_its_own_actions(admin, asked):
    aws = Aws.of(admin, "123456789012", "arn:aws:iam::123456789012:user/dev")
    balancer = "elasticloadbalancing:CreateLoadBalancer"
    assert balancer in identity.wanted(aws, asked(balanced=True))["*"]
    assert balancer not in identity.wanted(aws, asked())["*"]


def test_existing_networks_and_reservations_ask_for_other_actions(admin, asked):
    aws = Aws.of(admin, "123456789012", "arn:aws:iam::123456789012:user/dev")
    assert "ec2:CreateVpc" in identity.wanted(aws, asked())["*"]
    assert "ec2:CreateVpc" not in identity.wanted(aws, asked(subnet_id="subnet-1"))["*"]
    reserve = identity.wanted(aws, asked(capacity_kind="reserve"))["*"]
    assert "ec2:CreateCapacityReservation" in reserve
