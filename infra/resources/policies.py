"""IAM and bucket policies as data: who may do what, testable without an account."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from infra.plan.assignments import S3Location
from infra.plan.reach import Repository
from node_bootstrap.assignment import (
    KERNELS_PREFIX,
    WHEELS_PREFIX,
    assignment_key,
    status_key,
)
from node_bootstrap.ttl import EXTENSION_KEY

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


@dataclass(frozen=True)
class Models:
    """Weights in the stack's bucket, copied there by one of its nodes. writes: by this one."""

    prefix: str
    writes: bool


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
    reads: Sequence[str] = (),
    writes: Sequence[str] = (),
    weights: bool = True,
    builds: bool = False,
    models: Models | None = None,
    kernels: Literal["reads", "writes"] | None = None,
) -> str:
    """All that one node may do.

    Args:
        bucket_arn: the stack's bucket.
        name: the node.
        parameter_arns: the SSM parameters that its assignment names.
        model: the weights, where they lie in a bucket that isn't the stack's.
        repository: of its container image, where that is a private one.
        reads: S3 keys that it may get beside its assignment.
        writes: S3 keys that it may put beside its status.
        weights: whether it reads any.
        builds: it keeps wheels that it built in the bucket, for the nodes after it.
        models: weights that a node of the stack copies to the bucket.
        kernels: it takes compiled kernels that others left; it leaves some.
    """
    partition = bucket_arn.split(":")[1]
    return _document(
        *_own_objects(bucket_arn, name, (reads, writes), weights=weights),
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
        *([_kernels(bucket_arn, kernels)] if kernels else ()),
        *(_staged(bucket_arn, models, reads=weights) if models else ()),
    )


def builder(
    bucket_arn: str, name: str, repository: Repository | None = None, *, builds: bool = False
) -> str:
    """All that a node may do that only becomes an image: no weights, no secrets, no sessions."""
    partition = bucket_arn.split(":")[1]
    return _document(
        {
            "Sid": "OwnAssignmentAndArchive",
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": [f"{bucket_arn}/{key}" for key in (assignment_key(name), "bootstrap/*")],
        },
        {
            "Sid": "OwnStatus",
            "Effect": "Allow",
            "Action": "s3:PutObject",
            "Resource": f"{bucket_arn}/{status_key(name)}",
        },
        *(_pull(partition, repository) if repository else ()),
        *([_wheels(bucket_arn)] if builds else ()),
    )


def _own_objects(
    bucket_arn: str, name: str, further: tuple[Sequence[str], Sequence[str]], *, weights: bool
) -> Iterator[Mapping[str, Any]]:
    gets, writes = further
    models = ["models/*"] if weights else ()
    reads = [assignment_key(name), "bootstrap/*", *models, EXTENSION_KEY, *gets]
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


def _kernels(bucket_arn: str, right: Literal["reads", "writes"]) -> Mapping[str, Any]:
    """As with wheels; one node of a group leaves them."""
    return {
        "Sid": "CompiledKernels",
        "Effect": "Allow",
        "Action": ["s3:GetObject", *(["s3:PutObject"] if right == "writes" else [])],
        "Resource": f"{bucket_arn}/{KERNELS_PREFIX}*",
    }


def _staged(bucket_arn: str, models: Models, *, reads: bool) -> Iterator[Mapping[str, Any]]:
    """One node writes the weights; vLLM, where it reads them itself, lists them."""
    beside = f"{bucket_arn}/{models.prefix.rstrip('/')}"
    if models.writes:
        objects = [f"{bucket_arn}/{models.prefix}*", f"{beside}.*.json"]
        yield {
            "Sid": "CopyWeights",
            "Effect": "Allow",
            "Action": ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"],
            "Resource": objects,
        }
    if reads:
        yield {
            "Sid": "ListOfStagedWeights",
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": bucket_arn,
            "Condition": {"StringLike": {"s3:prefix": f"{models.prefix}*"}},
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
