"""Which action on which resources a request is, as IAM names them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

EC2_RESOURCES = {
    "InstanceId": "instance",
    "ImageId": "image",
    "SnapshotId": "snapshot",
    "SubnetId": "subnet",
    "VpcId": "vpc",
    "GroupId": "security-group",
    "SecurityGroupId": "security-group",
    "NetworkInterfaceId": "network-interface",
    "LaunchTemplateId": "launch-template",
    "LaunchTemplate.LaunchTemplateId": "launch-template",
    "VolumeId": "volume",
    "RouteTableId": "route-table",
    "InternetGatewayId": "internet-gateway",
    "NatGatewayId": "natgateway",
    "AllocationId": "elastic-ip",
    "CapacityReservationId": "capacity-reservation",
    "VpcEndpointId": "vpc-endpoint",
    "GroupName": "placement-group",
}
"""Parameter of EC2's query protocol -> resource type in the ARN."""
PUBLIC_KINDS = ("image", "snapshot")
"""Their ARNs name no account."""
RUN_INSTANCES_MAKES = ("instance/*", "network-interface/*", "volume/*")
"""RunInstances needs permission on what it makes as well as on what it names."""

S3_BUCKET = {
    "GET": {
        "accelerate": "GetAccelerateConfiguration",
        "acl": "GetBucketAcl",
        "cors": "GetBucketCORS",
        "encryption": "GetEncryptionConfiguration",
        "lifecycle": "GetLifecycleConfiguration",
        "location": "GetBucketLocation",
        "logging": "GetBucketLogging",
        "notification": "GetBucketNotification",
        "object-lock": "GetBucketObjectLockConfiguration",
        "ownershipControls": "GetBucketOwnershipControls",
        "policy": "GetBucketPolicy",
        "policyStatus": "GetBucketPolicyStatus",
        "publicAccessBlock": "GetBucketPublicAccessBlock",
        "replication": "GetReplicationConfiguration",
        "requestPayment": "GetBucketRequestPayment",
        "tagging": "GetBucketTagging",
        "uploads": "ListBucketMultipartUploads",
        "versioning": "GetBucketVersioning",
        "versions": "ListBucketVersions",
        "website": "GetBucketWebsite",
        "": "ListBucket",
    },
    "PUT": {
        "accelerate": "PutAccelerateConfiguration",
        "acl": "PutBucketAcl",
        "cors": "PutBucketCORS",
        "encryption": "PutEncryptionConfiguration",
        "lifecycle": "PutLifecycleConfiguration",
        "logging": "PutBucketLogging",
        "notification": "PutBucketNotification",
        "object-lock": "PutBucketObjectLockConfiguration",
        "ownershipControls": "PutBucketOwnershipControls",
        "policy": "PutBucketPolicy",
        "publicAccessBlock": "PutBucketPublicAccessBlock",
        "replication": "PutReplicationConfiguration",
        "requestPayment": "PutBucketRequestPayment",
        "tagging": "PutBucketTagging",
        "versioning": "PutBucketVersioning",
        "website": "PutBucketWebsite",
        "": "CreateBucket",
    },
    "DELETE": {
        "cors": "PutBucketCORS",
        "encryption": "PutEncryptionConfiguration",
        "lifecycle": "PutLifecycleConfiguration",
        "ownershipControls": "PutBucketOwnershipControls",
        "policy": "DeleteBucketPolicy",
        "publicAccessBlock": "PutBucketPublicAccessBlock",
        "replication": "PutReplicationConfiguration",
        "tagging": "PutBucketTagging",
        "website": "DeleteBucketWebsite",
        "": "DeleteBucket",
    },
    "HEAD": {"": "ListBucket"},
    "POST": {"delete": "DeleteObject", "": "PutObject"},
}
S3_OBJECT = {
    "GET": {
        "acl": "GetObjectAcl",
        "tagging": "GetObjectTagging",
        "uploadId": "ListMultipartUploadParts",
        "versionId": "GetObjectVersion",
        "": "GetObject",
    },
    "HEAD": {"versionId": "GetObjectVersion", "": "GetObject"},
    "PUT": {"acl": "PutObjectAcl", "tagging": "PutObjectTagging", "": "PutObject"},
    "POST": {"restore": "RestoreObject", "": "PutObject"},
    "DELETE": {
        "tagging": "DeleteObjectTagging",
        "uploadId": "AbortMultipartUpload",
        "versionId": "DeleteObjectVersion",
        "": "DeleteObject",
    },
}


def s3_action(method: str, query: Sequence[str], *, has_key: bool) -> str:
    """The IAM action of an S3 request, with its `s3:` prefix.

    Args:
        method: HTTP method.
        query: names of the query parameters.
        has_key: whether the path names an object.
    """
    table = (S3_OBJECT if has_key else S3_BUCKET).get(method, {"": f"Unknown{method}"})
    name = next((table[q] for q in query if q and q in table), table.get("", "Unknown"))
    return f"s3:{name}"


def ec2_resources(action: str, flat: Mapping[str, str], region: str, account: str) -> list[str]:
    """ARNs of the EC2 resources that a request names; ["*"] for Describe and where none is named.

    Args:
        action: EC2's action name.
        flat: the query protocol's parameters, e.g. `InstanceId.1`.
        region: the request's region.
        account: the account's id.
    """
    if action.startswith(("Describe", "Get")):
        return ["*"]
    prefix = f"arn:aws:ec2:{region}:{account}:"
    named = []
    for key, value in flat.items():
        kind = EC2_RESOURCES.get(_without_index(key))
        if kind == "placement-group" and "PlacementGroup" not in action:
            continue
        if kind:
            owner = f"arn:aws:ec2:{region}::" if kind in PUBLIC_KINDS else prefix
            named.append(f"{owner}{kind}/{value}")
    if action == "RunInstances":
        named += [prefix + made for made in RUN_INSTANCES_MAKES]
    return list(dict.fromkeys(named)) or ["*"]


def passed_roles(
    flat: Mapping[str, str], template: Mapping[str, Any], roles_of: Callable[[str], list[str]]
) -> list[str]:
    """ARNs of the roles that a launch hands to EC2: the caller must be allowed to pass them.

    Args:
        flat: the query protocol's parameters of RunInstances.
        template: data of the launch template that the request names; {} for none.
        roles_of: profile's name or ARN -> its roles' ARNs.
    """
    own = [flat[k] for k in ("IamInstanceProfile.Name", "IamInstanceProfile.Arn") if flat.get(k)]
    below = template.get("IamInstanceProfile") or {}
    named = own or [v for v in (below.get("Name"), below.get("Arn")) if v]
    return list(dict.fromkeys(role for profile in named for role in roles_of(profile)))


def _without_index(key: str) -> str:
    """`NetworkInterface.2.SubnetId` and `InstanceId.1` as `SubnetId` and `InstanceId`."""
    parts = [p for p in key.split(".") if not p.isdigit()]
    if parts[0] == "NetworkInterface" and len(parts) > 1:
        parts = parts[1:]
    if parts[0] == "SecurityGroupId":
        return "SecurityGroupId"
    return ".".join(parts)


def ssm_resources(body: Mapping[str, Any], region: str, account: str) -> list[str]:
    """ARNs of the parameters that an SSM request names; ["*"] where it names none."""
    names = [n for n in (body.get("Name"), body.get("Path")) if isinstance(n, str)]
    names += [n for n in body.get("Names") or [] if isinstance(n, str)]
    prefix = f"arn:aws:ssm:{region}:{account}:parameter/"
    # A version or label is asked for as `name:3`; a parameter is often named by its ARN.
    bare = [n.split(":parameter/")[-1].split(":")[0].strip("/") for n in names]
    return [prefix + n for n in bare] or ["*"]


def iam_resources(flat: Mapping[str, str], account: str) -> list[str]:
    """ARNs of the IAM entities that a request names; ["*"] where it names none."""
    kinds = {
        "RoleName": "role",
        "UserName": "user",
        "InstanceProfileName": "instance-profile",
        "GroupName": "group",
    }
    found = [f"arn:aws:iam::{account}:{kinds[k]}/{v}" for k, v in flat.items() if k in kinds][:1]
    return found or [v for k, v in flat.items() if k == "PolicyArn"] or ["*"]
