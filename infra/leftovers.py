"""What a stack has left in the account although Pulumi no longer knows it, and its removal.

AWS charges for what is forgotten. Everything that a stack makes carries its tag, its path (IAM),
its name (S3) or its prefix (SSM), so that it can be found without any state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import ClientError

from infra.names import STACK_TAG, bucket_name, iam_path, parameter_path

RETRY_SECONDS = 2.0
MOST_TAGGED = 20
"""Load balancers and target groups whose tags one call tells."""
GONE_STATES = ("terminated", "deleted", "deleting", "cancelled", "expired")

_DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
_IMAGES = ("describe_images", "Images", "ImageId")
_SNAPSHOTS = ("describe_snapshots", "Snapshots", "SnapshotId")


class CannotLookError(RuntimeError):
    """AWS does not let these credentials list everything, so nothing can be said of the rest."""


@dataclass(frozen=True)
class Leftover:
    """One thing that is still there. name: its Name tag, or its id where it has none."""

    stack: str
    kind: str
    id: str
    name: str
    held_by: str = ""
    """The instance that a network interface is attached to."""


@dataclass(frozen=True)
class Clients:
    """The AWS APIs that leftovers are found in."""

    ec2: Any
    s3: Any
    ssm: Any
    iam: Any
    sts: Any
    elb: Any

    @classmethod
    def of(cls, session: boto3.Session) -> Clients:
        """Clients of one session."""
        return cls(*(session.client(name) for name in ("ec2", "s3", "ssm", "iam", "sts", "elbv2")))


Named = tuple[str, ...]
"""(id, name) or (id, name, id of what holds it)"""


@dataclass(frozen=True)
class Kind:
    """How to find one kind of thing by its stack, and how to delete one of it by its id."""

    name: str
    find: Callable[[Clients, str], Iterator[Named]]
    delete: Callable[[Clients, str], Any]


def find(
    stack: str, session: boto3.Session, known_ids: Collection[str] = ()
) -> tuple[Leftover, ...]:
    """Look for everything of a stack, in the order in which it can be deleted.

    Args:
        stack: name of the stack.
        session: credentials and region.
        known_ids: ids that Pulumi still holds: these are no leftovers, nor is what they hold.

    Raises:
        CannotLookError: the credentials may not list all kinds; names the kinds.
        botocore.exceptions.ClientError: AWS refused for another reason.
    """
    return _find(Clients.of(session), stack, KINDS, known_ids)


def delete(
    leftovers: Iterable[Leftover],
    session: boto3.Session,
    timeout_seconds: float = 600.0,
    say: Callable[[str], None] = print,
) -> dict[Leftover, str]:
    """Delete what `find` found.

    AWS deletes much of it in its own time and refuses what something else still hangs on, so each
    round asks again for all that is left.

    Returns:
        What could not be deleted in time, each with AWS's last answer; empty when all is gone.
    """
    clients = Clients.of(session)
    left = list(leftovers)
    refusals: dict[Leftover, str] = {}
    deadline = time.monotonic() + timeout_seconds
    for item in left:
        say(f"deleting {item.kind} {item.id}")
    while left:
        for item in left:
            refusals[item] = _delete(clients, item)
        left = _still_there(clients, left)
        if time.monotonic() > deadline:
            break
        if left:
            time.sleep(RETRY_SECONDS)
    return {item: refusals[item] for item in left}


def _find(
    clients: Clients, stack: str, kinds: Iterable[Kind], known_ids: Collection[str]
) -> tuple[Leftover, ...]:
    found: list[Leftover] = []
    unseen: list[str] = []
    for kind in kinds:
        try:
            found += [Leftover(stack, kind.name, *named) for named in kind.find(clients, stack)]
        except ClientError as error:
            if _code(error) not in _DENIED:
                raise
            unseen.append(f"{kind.name}: {error}")
    if unseen:
        raise CannotLookError(
            f"What is left of {stack} can't be told; these kinds can't be listed:\n"
            + "\n".join(f"  - {line}" for line in unseen)
        )
    return tuple(i for i in found if i.id not in known_ids and i.held_by not in known_ids)


def _still_there(clients: Clients, items: list[Leftover]) -> list[Leftover]:
    stacks, kinds = {i.stack for i in items}, {i.kind for i in items}
    looked_at = [kind for kind in KINDS if kind.name in kinds]
    there = {(i.kind, i.id) for stack in stacks for i in _find(clients, stack, looked_at, ())}
    return [item for item in items if (item.kind, item.id) in there]


def _delete(clients: Clients, item: Leftover) -> str:
    """Ask AWS to delete it; answers AWS's refusal, or that it is under way."""
    kind = next(k for k in KINDS if k.name == item.kind)
    try:
        kind.delete(clients, item.id)
    except ClientError as error:
        return f"{_code(error)}: {error.response.get('Error', {}).get('Message')}"
    return "AWS is still deleting it"


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _described(
    operation: str, answer: str, id_key: str, *, filter_key: str = "Filters"
) -> Callable[[Clients, str], Iterator[Named]]:
    """A finder over one of EC2's Describe calls, by the stack's tag."""

    def finder(clients: Clients, stack: str) -> Iterator[Named]:
        for item in _tagged(clients, operation, answer, stack, filter_key=filter_key):
            if str(item.get("State", "")).lower() not in GONE_STATES:
                yield item[id_key], _name(item, item[id_key])

    return finder


def _tagged(
    clients: Clients, operation: str, answer: str, stack: str, *, filter_key: str = "Filters"
) -> Iterator[dict[str, Any]]:
    query = {filter_key: [{"Name": f"tag:{STACK_TAG}", "Values": [stack]}]}
    for page in _pages(clients.ec2, operation, query):
        yield from page[answer]


def _pages(client: Any, operation: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if client.can_paginate(operation):
        yield from client.get_paginator(operation).paginate(**query)
    else:
        yield getattr(client, operation)(**query)


def _name(item: dict[str, Any], otherwise: str) -> str:
    tags = {tag["Key"]: tag["Value"] for tag in item.get("Tags") or item.get("TagSet") or []}
    return tags.get("Name", otherwise)


def _instances(clients: Clients, stack: str) -> Iterator[Named]:
    for reservation in _tagged(clients, "describe_instances", "Reservations", stack):
        for instance in reservation["Instances"]:
            if instance["State"]["Name"] != "terminated":
                yield instance["InstanceId"], _name(instance, instance["InstanceId"])


def _network_interfaces(clients: Clients, stack: str) -> Iterator[Named]:
    """Of an instance that Pulumi knows, a launch template's further interfaces are no leftovers."""
    for item in _tagged(clients, "describe_network_interfaces", "NetworkInterfaces", stack):
        holder = (item.get("Attachment") or {}).get("InstanceId", "")
        yield item["NetworkInterfaceId"], _name(item, item["NetworkInterfaceId"]), holder


def _balancing(operation: str, answer: str, kind: str) -> Callable[[Clients, str], Iterator[Named]]:
    """A finder over load balancing's Describe calls, which can't be asked by a tag."""

    def finder(clients: Clients, stack: str) -> Iterator[Named]:
        for page in _pages(clients.elb, operation, {}):
            names = {item[f"{kind}Arn"]: item[f"{kind}Name"] for item in page[answer]}
            arns = list(names)
            for start in range(0, len(arns), MOST_TAGGED):
                asked = arns[start : start + MOST_TAGGED]
                told = clients.elb.describe_tags(ResourceArns=asked)["TagDescriptions"]
                for item in told:
                    if {"Key": STACK_TAG, "Value": stack} in item["Tags"]:
                        yield item["ResourceArn"], names[item["ResourceArn"]]

    return finder


def _route_tables(clients: Clients, stack: str) -> Iterator[Named]:
    """Without the VPC's main table, which goes with the VPC."""
    for item in _tagged(clients, "describe_route_tables", "RouteTables", stack):
        if not any(association.get("Main") for association in item.get("Associations", [])):
            yield item["RouteTableId"], _name(item, item["RouteTableId"])


def _bucket(clients: Clients, stack: str) -> Iterator[Named]:
    name = bucket_name(stack, clients.sts.get_caller_identity()["Account"])
    if name in {bucket["Name"] for bucket in clients.s3.list_buckets()["Buckets"]}:
        yield name, name


def _parameters(clients: Clients, stack: str) -> Iterator[Named]:
    query = {"Path": parameter_path(stack), "Recursive": True}
    for page in _pages(clients.ssm, "get_parameters_by_path", query):
        yield from ((item["Name"], item["Name"]) for item in page["Parameters"])


def _profiles(clients: Clients, stack: str) -> Iterator[Named]:
    yield from _under_path(
        clients, stack, "list_instance_profiles", "InstanceProfiles", "InstanceProfileName"
    )


def _roles(clients: Clients, stack: str) -> Iterator[Named]:
    yield from _under_path(clients, stack, "list_roles", "Roles", "RoleName")


def _under_path(
    clients: Clients, stack: str, operation: str, answer: str, name_key: str
) -> Iterator[Named]:
    path = iam_path(stack)
    for page in _pages(clients.iam, operation, {"PathPrefix": path}):
        for item in page[answer]:
            # An endpoint that does not know the prefix lists everybody's.
            if item["Path"].startswith(path):
                yield item[name_key], item[name_key]


def _delete_security_group(clients: Clients, id_: str) -> None:
    """Rules first: two groups that name each other would block each other's deletion."""
    (group,) = clients.ec2.describe_security_groups(GroupIds=[id_])["SecurityGroups"]
    if group["IpPermissions"]:
        clients.ec2.revoke_security_group_ingress(GroupId=id_, IpPermissions=group["IpPermissions"])
    if group["IpPermissionsEgress"]:
        clients.ec2.revoke_security_group_egress(
            GroupId=id_, IpPermissions=group["IpPermissionsEgress"]
        )
    clients.ec2.delete_security_group(GroupId=id_)


def _delete_route_table(clients: Clients, id_: str) -> None:
    (table,) = clients.ec2.describe_route_tables(RouteTableIds=[id_])["RouteTables"]
    for association in table.get("Associations", []):
        clients.ec2.disassociate_route_table(AssociationId=association["RouteTableAssociationId"])
    clients.ec2.delete_route_table(RouteTableId=id_)


def _delete_internet_gateway(clients: Clients, id_: str) -> None:
    (gateway,) = clients.ec2.describe_internet_gateways(InternetGatewayIds=[id_])[
        "InternetGateways"
    ]
    for attachment in gateway.get("Attachments", []):
        clients.ec2.detach_internet_gateway(InternetGatewayId=id_, VpcId=attachment["VpcId"])
    clients.ec2.delete_internet_gateway(InternetGatewayId=id_)


def _delete_bucket(clients: Clients, name: str) -> None:
    for page in clients.s3.get_paginator("list_object_versions").paginate(Bucket=name):
        every = page.get("Versions", []) + page.get("DeleteMarkers", [])
        objects = [{"Key": o["Key"], "VersionId": o["VersionId"]} for o in every]
        if objects:
            clients.s3.delete_objects(Bucket=name, Delete={"Objects": objects, "Quiet": True})
    clients.s3.delete_bucket(Bucket=name)


def _delete_profile(clients: Clients, name: str) -> None:
    profile = clients.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    for role in profile["Roles"]:
        clients.iam.remove_role_from_instance_profile(
            InstanceProfileName=name, RoleName=role["RoleName"]
        )
    clients.iam.delete_instance_profile(InstanceProfileName=name)


def _delete_role(clients: Clients, name: str) -> None:
    for policy in clients.iam.list_role_policies(RoleName=name)["PolicyNames"]:
        clients.iam.delete_role_policy(RoleName=name, PolicyName=policy)
    for policy in clients.iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        clients.iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
    clients.iam.delete_role(RoleName=name)


KINDS: tuple[Kind, ...] = (
    Kind("instance", _instances, lambda c, i: c.ec2.terminate_instances(InstanceIds=[i])),
    Kind("image", _described(*_IMAGES), lambda c, i: c.ec2.deregister_image(ImageId=i)),
    Kind("snapshot", _described(*_SNAPSHOTS), lambda c, i: c.ec2.delete_snapshot(SnapshotId=i)),
    Kind(
        "capacity reservation",
        _described(
            "describe_capacity_reservations", "CapacityReservations", "CapacityReservationId"
        ),
        lambda c, i: c.ec2.cancel_capacity_reservation(CapacityReservationId=i),
    ),
    Kind(
        "launch template",
        _described("describe_launch_templates", "LaunchTemplates", "LaunchTemplateId"),
        lambda c, i: c.ec2.delete_launch_template(LaunchTemplateId=i),
    ),
    Kind(
        "load balancer",
        _balancing("describe_load_balancers", "LoadBalancers", "LoadBalancer"),
        lambda c, i: c.elb.delete_load_balancer(LoadBalancerArn=i),
    ),
    Kind(
        "target group",
        _balancing("describe_target_groups", "TargetGroups", "TargetGroup"),
        lambda c, i: c.elb.delete_target_group(TargetGroupArn=i),
    ),
    Kind(
        "VPC endpoint",
        _described("describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId"),
        lambda c, i: c.ec2.delete_vpc_endpoints(VpcEndpointIds=[i]),
    ),
    Kind(
        "NAT gateway",
        _described("describe_nat_gateways", "NatGateways", "NatGatewayId", filter_key="Filter"),
        lambda c, i: c.ec2.delete_nat_gateway(NatGatewayId=i),
    ),
    Kind(
        "elastic IP",
        _described("describe_addresses", "Addresses", "AllocationId"),
        lambda c, i: c.ec2.release_address(AllocationId=i),
    ),
    Kind(
        "network interface",
        _network_interfaces,
        lambda c, i: c.ec2.delete_network_interface(NetworkInterfaceId=i),
    ),
    Kind(
        "security group",
        _described("describe_security_groups", "SecurityGroups", "GroupId"),
        _delete_security_group,
    ),
    Kind("route table", _route_tables, _delete_route_table),
    Kind(
        "subnet",
        _described("describe_subnets", "Subnets", "SubnetId"),
        lambda c, i: c.ec2.delete_subnet(SubnetId=i),
    ),
    Kind(
        "internet gateway",
        _described("describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
        _delete_internet_gateway,
    ),
    Kind(
        "VPC",
        _described("describe_vpcs", "Vpcs", "VpcId"),
        lambda c, i: c.ec2.delete_vpc(VpcId=i),
    ),
    Kind(
        "placement group",
        _described("describe_placement_groups", "PlacementGroups", "GroupName"),
        lambda c, i: c.ec2.delete_placement_group(GroupName=i),
    ),
    Kind("bucket", _bucket, _delete_bucket),
    Kind("SSM parameter", _parameters, lambda c, i: c.ssm.delete_parameter(Name=i)),
    Kind("instance profile", _profiles, _delete_profile),
    Kind("role", _roles, _delete_role),
)
"""In the order of deletion: what hangs on something comes before it."""
