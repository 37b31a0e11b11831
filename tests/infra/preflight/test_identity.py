from __future__ import annotations

import dataclasses

import pytest

from infra.preflight import identity
from infra.preflight.aws import Aws
from infra.preflight.run import CHECKS, results

ROLE = "arn:aws:iam::123456789012:role/teams/deployer"


def simulation(decision: str, *, missing: tuple[str, ...] = ()):
    result = {
        "EvalActionName": "ec2:RunInstances",
        "EvalDecision": decision,
        "MissingContextValues": list(missing),
    }
    return "simulate_principal_policy", {"EvaluationResults": [result], "IsTruncated": False}


@pytest.fixture
def role(stubbed, asked):
    """Verdict of the role's check with what IAM answers to its six questions."""

    def judge(*answers, arn: str = "arn:aws:iam::123456789012:user/dev"):
        aws = dataclasses.replace(stubbed(iam=answers), arn=arn)
        (verdict,) = identity._role(aws, asked())
        return verdict

    return judge


def test_a_region_of_aws_passes(result_of, asked):
    assert result_of("REGION", asked()).message == "us-east-1 is enabled"


def test_a_region_that_aws_does_not_have_fails(stubbed, asked):
    refusal = ("describe_regions", "InvalidParameterValue", "Invalid region name us-east-1")
    (verdict,) = identity._region(stubbed(ec2=[refusal]), asked())
    assert (verdict.state, verdict.message) == ("FAIL", "AWS has no region us-east-1")


def test_a_region_that_is_not_enabled_fails(stubbed, asked):
    answer = {"Regions": [{"RegionName": "us-east-1", "OptInStatus": "not-opted-in"}]}
    (verdict,) = identity._region(stubbed(ec2=[("describe_regions", answer)]), asked())
    assert (verdict.state, verdict.remedy) == ("FAIL", "enable the region")


def test_a_user_who_may_do_it_all_passes(role):
    assert role(*[simulation("allowed")] * 6).state == "PASS"


def test_an_action_that_is_not_allowed_fails_and_is_named(role):
    verdict = role(simulation("implicitDeny"), *[simulation("allowed")] * 5)
    assert verdict.state == "FAIL"
    assert "may not ec2:RunInstances" in verdict.message


def test_a_decision_that_hangs_on_conditions_is_a_warning(role):
    unsure = simulation("implicitDeny", missing=("aws:RequestTag/team",))
    assert role(unsure, *[simulation("allowed")] * 5).state == "WARN"


def test_the_session_of_a_role_is_judged_by_the_role_with_its_path(role):
    held = {
        "Path": "/teams/",
        "RoleName": "deployer",
        "RoleId": "AROA0000000000000000",
        "Arn": ROLE,
        "CreateDate": "2026-01-01T00:00:00Z",
    }
    session = "arn:aws:sts::123456789012:assumed-role/deployer/me"
    answers = [("get_role", {"Role": held}), *[simulation("allowed")] * 6]
    assert ROLE in role(*answers, arn=session).message


def test_the_root_user_needs_no_simulation(role):
    assert role(arn="arn:aws:iam::123456789012:root").state == "PASS"


def test_without_the_permission_to_simulate_it_is_skipped(stubbed, asked):
    (check,) = (c for c in CHECKS if c.code == "PREFLIGHT_ROLE")
    denied = ("simulate_principal_policy", "AccessDenied", "no")
    (result,) = results(check, stubbed(iam=[denied]), asked())
    assert (result.state, result.permission) == ("SKIPPED", "iam:SimulatePrincipalPolicy")


def test_existing_networks_and_reservations_ask_for_other_actions(admin, asked):
    aws = Aws.of(admin, "123456789012", "arn:aws:iam::123456789012:user/dev")
    assert "ec2:CreateVpc" in identity.wanted(aws, asked())["*"]
    assert "ec2:CreateVpc" not in identity.wanted(aws, asked(subnet_id="subnet-1"))["*"]
    reserve = identity.wanted(aws, asked(capacity_kind="reserve"))["*"]
    assert "ec2:CreateCapacityReservation" in reserve
