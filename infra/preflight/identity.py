"""Region and role: may these credentials do here what the program does?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from infra.names import bucket_name, iam_path, parameter_path
from infra.preflight.aws import Aws, code_of
from infra.preflight.check import Check, always
from infra.preflight.result import Verdict, failed, passed, skipped, warned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from infra.preflight.asked import Asked

Decisions = list[tuple[str, str, tuple[str, ...]]]
"""(action, decision, context keys that were missing), as SimulatePrincipalPolicy answers."""

EC2_ACTIONS = (
    "ec2:CreateLaunchTemplate",
    "ec2:CreateNetworkInterface",
    "ec2:CreateSecurityGroup",
    "ec2:AuthorizeSecurityGroupIngress",
    "ec2:AuthorizeSecurityGroupEgress",
    "ec2:CreateTags",
    "ec2:RunInstances",
    "ec2:TerminateInstances",
    "ec2:DescribeInstances",
)
BALANCER_ACTIONS = (
    "elasticloadbalancing:CreateLoadBalancer",
    "elasticloadbalancing:CreateTargetGroup",
    "elasticloadbalancing:CreateListener",
    "elasticloadbalancing:RegisterTargets",
)
NETWORK_ACTIONS = (
    "ec2:CreateVpc",
    "ec2:CreateSubnet",
    "ec2:CreateRouteTable",
    "ec2:AssociateRouteTable",
    "ec2:CreateVpcEndpoint",
)
BUCKET_ACTIONS = (
    "s3:CreateBucket",
    "s3:PutBucketPolicy",
    "s3:PutBucketPublicAccessBlock",
    "s3:PutEncryptionConfiguration",
    "s3:ListBucket",
    "s3:DeleteBucket",
)
ROLE_ACTIONS = (
    "iam:CreateRole",
    "iam:PutRolePolicy",
    "iam:PassRole",
    "iam:DeleteRole",
)


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
    for resources, actions in wanted(aws, asked).items():
        pages = aws.iam.get_paginator("simulate_principal_policy").paginate(
            PolicySourceArn=arn, ActionNames=list(actions), ResourceArns=[resources]
        )
        decisions += [
            (r["EvalActionName"], r["EvalDecision"], tuple(r.get("MissingContextValues", ())))
            for page in pages
            for r in page["EvaluationResults"]
        ]
    yield judge_role(arn, decisions)


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
    ec2: list[str] = list(EC2_ACTIONS)
    if asked.makes_network:
        ec2 += NETWORK_ACTIONS
    if asked.capacity_kind == "reserve":
        ec2 += ["ec2:CreateCapacityReservation", "ec2:CancelCapacityReservation"]
    if asked.gpu:
        ec2 += ["ec2:CreatePlacementGroup"]
    if asked.public:
        ec2 += BALANCER_ACTIONS
    partition = aws.arn.split(":")[1]
    bucket = f"arn:{partition}:s3:::{bucket_name(asked.stack, aws.account)}"
    parameter = f"arn:{partition}:ssm:{aws.region}:{aws.account}:parameter"
    return {
        "*": ec2,
        bucket: BUCKET_ACTIONS,
        f"{bucket}/nodes/x/assignment.json": ("s3:PutObject", "s3:GetObject"),
        f"{parameter}{parameter_path(asked.stack)}agent-token": ("ssm:PutParameter",),
        f"arn:{partition}:iam::{aws.account}:role{iam_path(asked.stack)}x": ROLE_ACTIONS,
        f"arn:{partition}:iam::{aws.account}:instance-profile{iam_path(asked.stack)}x": (
            "iam:CreateInstanceProfile",
            "iam:AddRoleToInstanceProfile",
        ),
    }


def _principal(aws: Aws) -> str | None:
    """The user or role whose policies count; the session of a role has none of its own."""
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
        "The credentials may do what the program does.",
        ("iam:SimulatePrincipalPolicy", "iam:GetRole"),
        always,
        _role,
    ),
)
