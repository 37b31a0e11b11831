"""IAM and bucket policies as data: who may do what, testable without an account."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from infra.plan.assignments import S3Location
from infra.plan.reach import Repository
from node_bootstrap.assignment import EXTENSION_KEY, WHEELS_PREFIX, assignment_key, status_key

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


def node(  # noqa: PLR0913 - each is a right or a place of one
    bucket_arn: str,
    name: str,
    parameter_arns: Sequence[str],
    model: S3Location | None = None,
    repository: Repository | None = None,
    *,
    writes: Sequence[str] = (),
    weights: bool = True,
    builds: bool = False,
) -> str:
    """All that one node may do.

    Args:
        bucket_arn: the stack's bucket.
        name: the node.
        parameter_arns: the SSM parameters that its assignment names.
        model: the weights, where they lie in a bucket that isn't the stack's.
        repository: of its container image, where that is a private one.
        writes: S3 keys that it may put beside its status.
        weights: whether it reads any.
        builds: it keeps wheels that it built in the bucket, for the nodes after it.
    """
    partition = bucket_arn.split(":")[1]
    return _document(
        *_own_objects(bucket_arn, name, writes, weights=weights),
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
        *(_model(partition, model) if model else ()),
        *(_pull(partition, repository) if repository else ()),
        *([_wheels(bucket_arn)] if builds else ()),
    )


def _own_objects(
    bucket_arn: str, name: str, writes: Sequence[str], *, weights: bool
) -> Iterator[Mapping[str, Any]]:
    reads = [assignment_key(name), "bootstrap/*", *(["models/*"] if weights else ()), EXTENSION_KEY]
    yield {
        "Sid": "OwnAssignmentArchiveAndWeights",
        "Effect": "Allow",
        "Action": "s3:GetObject",
        "Resource": [f"{bucket_arn}/{key}" for key in reads],
    }
    puts = [f"{bucket_arn}/{key}" for key in (status_key(name), *writes)]
    yield {
        "Sid": "OwnStatus",
        "Effect": "Allow",
        "Action": "s3:PutObject",
        "Resource": puts if writes else puts[0],
    }


def _wheels(bucket_arn: str) -> Mapping[str, Any]:
    """Nodes of one stack trust one another: they run one another's engines already."""
    return {
        "Sid": "BuiltWheels",
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:PutObject"],
        "Resource": f"{bucket_arn}/{WHEELS_PREFIX}*",
    }


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
