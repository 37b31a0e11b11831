"""Region and role: may these credentials do here what the program does?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from infra.names import bucket_name, iam_path, parameter_path
from infra.preflight import actions
from infra.preflight.aws import Aws, code_of
from infra.preflight.check import Check, always
from infra.preflight.result import Verdict, failed, passed, skipped, warned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from infra.preflight.asked import Asked

Decisions = list[tuple[str, str, tuple[str, ...]]]
"""(action, decision, context keys that were missing), as SimulatePrincipalPolicy answers."""


def _region(aws: Aws, _: Asked) -> Iterator[Verdict]:
    try:
        found = aws.ec2.describe_regions(RegionNames=[aws.region], AllRegions=True)["Regions"]
    except ClientError as error:
        if code_of(error) != "InvalidParameterValue":
            raise
        found = []
    if not found:
        yield failed(f"AWS has no region {aws.region}", "set aws:region to a region of AWS")
        return
    if found[0].get("OptInStatus") == "not-opted-in":
        yield failed(f"{aws.region} is not enabled in account {aws.account}", "enable the region")
        return
    yield passed(f"{aws.region} is enabled")


def _role(aws: Aws, asked: Asked) -> Iterator[Verdict]:
    arn = _principal(aws)
    if arn is None:
        yield skipped(f"policies of {aws.arn} can't be simulated", "look by hand")
        return
    if arn.endswith(":root"):
        yield passed("the account's root user may do everything")
        return
    decisions: Decisions = []
    for resource, tried in wanted(aws, asked).items():
        try:
            decisions += _simulated(aws, arn, resource, tried)
        except ClientError as error:
            if code_of(error) != "NoSuchEntity":
                raise
            yield failed(f"account {aws.account} has no {arn}", "give --role one that it has")
            return
    yield judge_role(arn, decisions)


def _simulated(aws: Aws, arn: str, resource: str, tried: Iterable[str]) -> Decisions:
    pages = aws.iam.get_paginator("simulate_principal_policy").paginate(
        PolicySourceArn=arn, ActionNames=list(tried), ResourceArns=[resource]
    )
    return [
        (r["EvalActionName"], r["EvalDecision"], tuple(r.get("MissingContextValues", ())))
        for page in pages
        for r in page["EvaluationResults"]
    ]


def judge_role(arn: str, decisions: Decisions) -> Verdict:
    """What the simulated policies mean for an update."""
    denied = sorted(a for a, said, missing in decisions if said != "allowed" and not missing)
    unsure = sorted(a for a, said, missing in decisions if said != "allowed" and missing)
    if denied:
        return failed(
            f"{arn} may not {', '.join(denied)}: `pulumi up` would stop half-way",
            "allow these actions, or take a role that has them",
        )
    if unsure:
        return warned(
            f"whether {arn} may {', '.join(unsure)} depends on conditions that a simulation lacks",
            "look at the conditions of its policies",
        )
    return passed(f"{arn} may do all {len(decisions)} actions that were tried")


def wanted(aws: Aws, asked: Asked) -> Mapping[str, Iterable[str]]:
    """Resource -> what the program does to it."""
    partition = aws.arn.split(":")[1]
    bucket = f"arn:{partition}:s3:::{bucket_name(asked.stack, aws.account)}"
    parameter = f"arn:{partition}:ssm:{aws.region}:{aws.account}:parameter"
    iam = f"arn:{partition}:iam::{aws.account}"
    return {
        "*": actions.of(_on_anything(asked)),
        bucket: actions.of(actions.BUCKET),
        f"{bucket}/nodes/x/assignment.json": actions.of(actions.OBJECT),
        f"{parameter}{parameter_path(asked.stack)}agent-token": actions.of(actions.PARAMETER),
        f"{iam}:role{iam_path(asked.stack)}x": actions.of(actions.ROLE),
        f"{iam}:instance-profile{iam_path(asked.stack)}x": actions.of(actions.PROFILE),
    }


def _on_anything(asked: Asked) -> Iterator[str]:
    """The types whose resources have no name beforehand that a policy could say."""
    yield from actions.NODES
    if asked.makes_network:
        yield from actions.NETWORK
        if asked.public:
            yield from actions.PUBLIC_SUBNET
    if asked.elastic_ips:
        yield from actions.NAT
    if asked.capacity_kind == "reserve":
        yield from actions.RESERVATION
    if asked.gpu:
        yield from actions.PLACEMENT
    if asked.balanced:
        yield from actions.BALANCER


def _principal(aws: Aws) -> str | None:
    """The user or role whose policies count; the session of a role has none of its own."""
    if aws.deployer is not None:
        return aws.deployer
    kind, _, rest = aws.arn.rpartition(":")[2].partition("/")
    if kind in ("user", "root"):
        return aws.arn
    if kind == "assumed-role":
        # The session's ARN has no path, so IAM must be asked for the role's own.
        return aws.iam.get_role(RoleName=rest.partition("/")[0])["Role"]["Arn"]
    return None


CHECKS = (
    Check(
        "PREFLIGHT_REGION",
        "aws:region",
        "The region is one of AWS's and enabled in the account.",
        ("ec2:DescribeRegions",),
        always,
        _region,
    ),
    Check(
        "PREFLIGHT_ROLE",
        "aws:profile",
        "The credentials, or the role that is given, may do what the program does.",
        ("iam:SimulatePrincipalPolicy", "iam:GetRole"),
        always,
        _role,
    ),
)
