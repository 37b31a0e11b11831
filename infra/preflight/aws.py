"""The AWS APIs that are read, and the words for what they refuse."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import ClientError

from infra import reservations
from infra.names import STACK_TAG

if TYPE_CHECKING:
    from collections.abc import Iterator

    import boto3

SERVICES = ("ec2", "s3", "ssm", "iam", "service-quotas", "acm")
DENIED = (
    "403",
    "AccessDenied",
    "AccessDeniedException",
    "AuthorizationError",
    "Forbidden",
    "UnauthorizedOperation",
)
CREDENTIALS_REFUSED = (
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)
CONFIG = Config(
    connect_timeout=3,
    read_timeout=10,
    retries={"mode": "standard", "total_max_attempts": 2},
    max_pool_connections=16,
)
"""An account that doesn't answer must not hold the others' answers up."""
_NAMED = re.compile(r"not authorized to perform:? ([A-Za-z0-9-]+:[A-Za-z0-9]+)")
_PERMISSIONS = {
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "GetServiceQuota": "servicequotas:GetServiceQuota",
    "GetAWSDefaultServiceQuota": "servicequotas:GetAWSDefaultServiceQuota",
    "GetParameter": "ssm:GetParameter",
    "DescribeCertificate": "acm:DescribeCertificate",
    "SimulatePrincipalPolicy": "iam:SimulatePrincipalPolicy",
    "GetRole": "iam:GetRole",
}
"""Operations whose action has another name or another service than ec2."""


@dataclass(frozen=True)
class Aws:
    """Clients of one session, made before the threads: making one is not thread-safe.

    account, arn: whose credentials these are. deployer: ARN of the user or role that updates the
    stack, where these credentials only read.
    """

    region: str
    account: str
    arn: str
    ec2: Any
    s3: Any
    ssm: Any
    iam: Any
    quotas: Any
    acm: Any
    deployer: str | None = None

    @classmethod
    def of(cls, session: boto3.Session, account: str, arn: str, deployer: str | None = None) -> Aws:
        """Clients of a session whose credentials are known to work."""
        # The names of services are literals to the stubs.
        make: Any = session.client
        clients = [make(name, config=CONFIG) for name in SERVICES]
        return cls(str(session.region_name), account, arn, *clients, deployer=deployer)

    def pages(self, operation: str, answer: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All items of one of EC2's Describe calls."""
        if not self.ec2.can_paginate(operation):
            yield from getattr(self.ec2, operation)(**query)[answer]
            return
        for page in self.ec2.get_paginator(operation).paginate(**query):
            yield from page[answer]

    def subnet(self, id_: str | None) -> dict[str, Any] | None:
        """A subnet as EC2 describes it; None where the region has no such one."""
        try:
            (found,) = self.ec2.describe_subnets(SubnetIds=[id_])["Subnets"]
        except ClientError as error:
            if not code_of(error).startswith("InvalidSubnetI"):
                raise
            return None
        return found

    def reservation(self, id_: str | None) -> dict[str, Any] | None:
        """A capacity reservation or block; None where none is named, or the region has none."""
        return None if id_ is None else reservations.described(self.ec2, id_)


def code_of(error: ClientError) -> str:
    """AWS's code of a refusal."""
    return str(error.response.get("Error", {}).get("Code", ""))


def missing_permission(error: ClientError) -> str:
    """The IAM action that a refusal is about; empty where the refusal is about something else."""
    if code_of(error) not in DENIED:
        return ""
    named = _NAMED.search(str(error.response.get("Error", {}).get("Message", "")))
    if named:
        return named[1]
    operation = error.operation_name
    return _PERMISSIONS.get(operation, f"ec2:{operation}")


def is_own(item: dict[str, Any], stack: str) -> bool:
    """Whether a thing of the account belongs to the stack itself."""
    tags = item.get("Tags") or item.get("TagSet") or []
    return any(tag["Key"] == STACK_TAG and tag["Value"] == stack for tag in tags)
