"""Every permission that a check takes: without it the check is SKIPPED, and names it."""

from __future__ import annotations

import pytest

from infra.preflight.run import CHECKS, run

ONLY_SOMETIMES = {
    "servicequotas:GetAWSDefaultServiceQuota": "asked where the account has no value of its own",
    "ec2:DescribeInstanceTypes": "asked for types that the catalog lacks",
    "iam:GetRole": "asked for the session of a role",
}
CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/0a1b2c3d"
CASES = [
    (check.code, permission)
    for check in CHECKS
    for permission in check.permissions
    if permission not in ONLY_SOMETIMES
]


@pytest.fixture(scope="module")
def reservation(admin):
    made = admin.client("ec2").create_capacity_reservation(
        InstanceType="c7i.large",
        InstancePlatform="Linux/UNIX",
        AvailabilityZone="us-east-1a",
        InstanceCount=2,
    )
    return made["CapacityReservation"]["CapacityReservationId"]


@pytest.fixture
def stack_of(asked, subnet, reservation):
    """A stack that a check applies to."""

    def make(code: str, permission: str = ""):
        if code == "PREFLIGHT_VPC_QUOTA":
            return asked()
        if code in ("PREFLIGHT_RESERVATION", "PREFLIGHT_CAPACITY_BLOCK"):
            kind = code.removeprefix("PREFLIGHT_").lower().replace("_", "-")
            return asked(capacity_kind=kind, capacity_id=reservation, subnet_id=subnet()[1])
        if (code, permission) == ("PREFLIGHT_TYPE_OFFERED", "ec2:DescribeCapacityReservations"):
            return asked(capacity_kind="reservation", capacity_id=reservation)
        if code == "PREFLIGHT_PUBLIC_SUBNET":
            vpc, name = subnet()
            return asked(vpc_id=vpc, subnet_id=name, public_subnet_id=name)
        if code == "PREFLIGHT_CERTIFICATE":
            return asked(certificate_arn=CERTIFICATE)
        return asked(subnet_id=subnet()[1], elastic_ips=1, model_source="s3://models/m")

    return make


@pytest.mark.parametrize(("code", "permission"), CASES, ids=[f"{c}-{p}" for c, p in CASES])
def test_without_a_permission_the_check_is_skipped_and_names_it(
    code, permission, without, stack_of, results_of
):
    stack = stack_of(code, permission)
    results = results_of(code.removeprefix("PREFLIGHT_"), stack, without(permission))
    assert [(r.state, r.permission) for r in results] == [("SKIPPED", permission)]
    assert permission in results[0].message


def test_without_any_permission_every_check_is_skipped_and_none_fails(without, stack_of):
    stack = stack_of("PREFLIGHT_WAY_TO_AWS")
    states = {r.code: r.state for r in run(without("*"), stack)}
    # Whose credentials these are may be asked by everybody.
    assert states.pop("PREFLIGHT_CREDENTIALS") == "PASS"
    assert set(states.values()) == {"SKIPPED"}
