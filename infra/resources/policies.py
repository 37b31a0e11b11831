"""IAM and bucket policies as data: who may do what, testable without an account."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from infra.plan.assignments import S3Location
from infra.plan.reach import Repository
from node_bootstrap.assignment import EXTENSION_KEY, assignment_key, status_key

VERSION = "2012-10-17"

SESSION_MANAGER_ACTIONS = (
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
)
"""What the SSM agent needs for Session Manager alone.

AWS's own AmazonSSMManagedInstanceCore also grants ssm:GetParameters on every parameter of the
account: any node could then read any stack's secrets.
"""


def assumed_by_ec2() -> str:
    """Trust policy of a node's role."""
    return _document(
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    )


def node(
    bucket_arn: str,
    name: str,
    parameter_arns: Sequence[str],
    model: S3Location | None = None,
    repository: Repository | None = None,
) -> str:
    """All that one node may do.

    Args:
        bucket_arn: the stack's bucket.
        name: the node.
        parameter_arns: the SSM parameters that its assignment names.
        model: the weights, where they lie in a bucket that isn't the stack's.
        repository: of its container image, where that is a private one.
    """
    return _document(
        {
            "Sid": "OwnAssignmentArchiveAndWeights",
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": [
                f"{bucket_arn}/{assignment_key(name)}",
                f"{bucket_arn}/bootstrap/*",
                f"{bucket_arn}/models/*",
                f"{bucket_arn}/{EXTENSION_KEY}",
            ],
        },
        {
            "Sid": "OwnStatus",
            "Effect": "Allow",
            "Action": "s3:PutObject",
            "Resource": f"{bucket_arn}/{status_key(name)}",
        },
        {
            "Sid": "NamedSecrets",
            "Effect": "Allow",
            "Action": "ssm:GetParameters",
            "Resource": sorted(parameter_arns),
        },
        {
            # These actions know no resources: IAM takes nothing but * here.
            "Sid": "SessionManager",
            "Effect": "Allow",
            "Action": list(SESSION_MANAGER_ACTIONS),
            "Resource": "*",
        },
        *(_model(bucket_arn.split(":")[1], model) if model else ()),
        *(_pull(bucket_arn.split(":")[1], repository) if repository else ()),
    )


def _model(partition: str, model: S3Location) -> list[Mapping[str, Any]]:
    """Read one prefix, and list it: which files a model has is known by its bucket alone."""
    bucket = f"arn:{partition}:s3:::{model.bucket}"
    return [
        {
            "Sid": "Weights",
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": f"{bucket}/{model.prefix}*",
        },
        {
            "Sid": "ListOfWeights",
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": bucket,
            "Condition": {"StringLike": {"s3:prefix": f"{model.prefix}*"}},
        },
    ]


def _pull(partition: str, repository: Repository) -> list[Mapping[str, Any]]:
    """Pull images of one repository; the token that it takes is of the whole registry."""
    place = f"{repository.region}:{repository.account}"
    return [
        {
            "Sid": "TokenOfRegistry",
            "Effect": "Allow",
            "Action": "ecr:GetAuthorizationToken",
            "Resource": "*",
        },
        {
            "Sid": "PullImage",
            "Effect": "Allow",
            "Action": [
                "ecr:BatchCheckLayerAvailability",
                "ecr:BatchGetImage",
                "ecr:GetDownloadUrlForLayer",
            ],
            "Resource": f"arn:{partition}:ecr:{place}:repository/{repository.name}",
        },
    ]


def tls_only(bucket_arn: str) -> str:
    """Bucket policy that refuses requests without TLS, whoever makes them."""
    return _document(
        {
            "Sid": "TlsOnly",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [bucket_arn, f"{bucket_arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    )


def _document(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": VERSION, "Statement": list(statements)}, sort_keys=True)
