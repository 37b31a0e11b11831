"""What DescribeInstances says about an instance, as pulumi-aws names it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from rehearsal.provider import errors, shapes
from rehearsal.provider.wire import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rehearsal.provider.resource import Call, Inputs, State


def properties(call: Call, instance: Mapping[str, Any], known: Inputs) -> State:
    """All properties of an instance.

    Args:
        call: the operation; attributes and volumes take calls of their own.
        instance: as DescribeInstances answers it.
        known: inputs or earlier state: user data is looked up only where the program gave it,
            so that what comes from a launch template doesn't swell the state.
    """
    rid = instance["InstanceId"]
    placement = instance.get("Placement") or {}
    profile = (instance.get("IamInstanceProfile") or {}).get("Arn")
    return {
        "arn": call.arn("ec2", f"instance/{rid}"),
        "ami": instance.get("ImageId"),
        "instanceType": instance.get("InstanceType"),
        "instanceState": instance["State"]["Name"],
        "instanceLifecycle": instance.get("InstanceLifecycle"),
        "availabilityZone": placement.get("AvailabilityZone"),
        "placementGroup": placement.get("GroupName") or None,
        "placementGroupId": placement.get("GroupId"),
        "placementPartitionNumber": placement.get("PartitionNumber"),
        "tenancy": placement.get("Tenancy"),
        "hostId": placement.get("HostId"),
        "keyName": instance.get("KeyName"),
        **_network(instance),
        "iamInstanceProfile": profile.rsplit("/", 1)[-1] if profile else None,
        "ebsOptimized": instance.get("EbsOptimized"),
        "monitoring": (instance.get("Monitoring") or {}).get("State") in ("enabled", "pending"),
        "spotInstanceRequestId": instance.get("SpotInstanceRequestId"),
        "outpostArn": instance.get("OutpostArn"),
        "tagsAll": shapes.tag_map(instance.get("Tags")),
        **_options(instance),
        **_launch_template(instance, known),
        **_attributes(call, rid, known),
        **_block_devices(call, instance),
    }


def runs_version(
    wanted: Any, state: Inputs, resolve: Callable[[str], tuple[str, str, str]]
) -> bool:
    """Whether an instance runs a version of its launch template already.

    Args:
        wanted: a number, `$Default`, `$Latest`, nothing (the default), or not known yet.
        state: its last known properties.
        resolve: asks AWS for (version that runs, default, latest) of a template.
    """
    template = state.get("launchTemplate") or {}
    if wanted == UNKNOWN:
        return False
    running, asked = str(template.get("version", "")), str(wanted or "$Default")
    if asked.isdigit() and running.isdigit():
        return asked == running
    running, default, latest = resolve(str(template.get("id", "")))
    return running == {"$Default": default, "$Latest": latest}.get(asked, asked)


def _network(instance: Mapping[str, Any]) -> State:
    primary = _primary(instance)
    return {
        "publicDns": instance.get("PublicDnsName") or "",
        "publicIp": instance.get("PublicIpAddress") or "",
        "privateDns": instance.get("PrivateDnsName"),
        "privateIp": primary.get("PrivateIpAddress") or instance.get("PrivateIpAddress"),
        "subnetId": primary.get("SubnetId") or instance.get("SubnetId"),
        "sourceDestCheck": primary.get("SourceDestCheck", instance.get("SourceDestCheck")),
        "primaryNetworkInterfaceId": primary.get("NetworkInterfaceId"),
        "primaryNetworkInterface": _primary_reference(primary),
        "associatePublicIpAddress": bool(primary.get("Association")),
        "secondaryPrivateIps": [
            entry["PrivateIpAddress"]
            for entry in primary.get("PrivateIpAddresses") or []
            if not entry.get("Primary")
        ],
        "ipv6Addresses": [entry["Ipv6Address"] for entry in primary.get("Ipv6Addresses") or []],
        "securityGroups": [],
        "vpcSecurityGroupIds": [group["GroupId"] for group in _groups(instance, primary)],
    }


def _primary(instance: Mapping[str, Any]) -> Mapping[str, Any]:
    """The interface at card 0, device index 0: other cards may have a device index 0 as well."""
    for nic in instance.get("NetworkInterfaces") or []:
        attachment = nic.get("Attachment") or {}
        if not attachment.get("DeviceIndex") and not attachment.get("NetworkCardIndex"):
            return nic
    return {}


def _primary_reference(primary: Mapping[str, Any]) -> State | None:
    if not primary:
        return None
    attachment = primary.get("Attachment") or {}
    return {
        "networkInterfaceId": primary["NetworkInterfaceId"],
        "deleteOnTermination": attachment.get("DeleteOnTermination", False),
    }


def _groups(instance: Mapping[str, Any], primary: Mapping[str, Any]) -> list[dict[str, Any]]:
    return primary.get("Groups") or instance.get("SecurityGroups") or []


def _options(instance: Mapping[str, Any]) -> State:
    metadata = dict(instance.get("MetadataOptions") or {})
    metadata.pop("State", None)
    fields = {
        "capacityReservationSpecification": instance.get("CapacityReservationSpecification"),
        "cpuOptions": instance.get("CpuOptions"),
        "enclaveOptions": instance.get("EnclaveOptions"),
        "maintenanceOptions": instance.get("MaintenanceOptions"),
        "metadataOptions": metadata,
        "privateDnsNameOptions": instance.get("PrivateDnsNameOptions"),
    }
    return {name: shapes.from_api(value) if value else None for name, value in fields.items()}


def _launch_template(instance: Mapping[str, Any], known: Inputs) -> State:
    """EC2 marks an instance with the template it came from in two tags of its own."""
    found = {tag["Key"]: tag["Value"] for tag in instance.get("Tags") or []}
    template = found.get("aws:ec2launchtemplate:id")
    if not template:
        return {}
    version = found.get("aws:ec2launchtemplate:version")
    asked = (known.get("launchTemplate") or {}).get("version")
    if str(asked).startswith("$"):
        version = asked
    name = (known.get("launchTemplate") or {}).get("name")
    reference = {"id": template, "name": name, "version": version}
    return {"launchTemplate": {key: value for key, value in reference.items() if value}}


def _attributes(call: Call, rid: str, known: Inputs) -> State:
    """Three attributes that DescribeInstances leaves out."""
    names = ["disableApiTermination", "disableApiStop", "instanceInitiatedShutdownBehavior"]
    if "userData" in known or "userDataBase64" in known:
        names.append("userData")
    found: State = {}
    for name in names:
        try:
            answer = call.client("ec2").describe_instance_attribute(InstanceId=rid, Attribute=name)
        except Exception as error:
            # an instance that goes away meanwhile, and endpoints that lack the newest attribute
            if errors.gone(error) or errors.code(error) in ("InvalidParameterValue", "400"):
                continue
            raise
        found[name] = (answer.get(name[0].upper() + name[1:]) or {}).get("Value")
    data = found.pop("userData", None)
    if data and "userDataBase64" in known:
        found["userDataBase64"] = data
    elif data:
        found["userData"] = base64.b64decode(data).decode("utf-8", "replace")
    return found


def _block_devices(call: Call, instance: Mapping[str, Any]) -> State:
    mappings = [m for m in instance.get("BlockDeviceMappings") or [] if m.get("Ebs")]
    if not mappings:
        return {}
    ids = [mapping["Ebs"]["VolumeId"] for mapping in mappings]
    try:
        answer = call.client("ec2").describe_volumes(VolumeIds=ids)
    except Exception as error:
        if errors.gone(error):
            return {}
        raise
    volumes = {volume["VolumeId"]: volume for volume in answer["Volumes"]}
    root, others = None, []
    for mapping in mappings:
        volume = volumes.get(mapping["Ebs"]["VolumeId"], {})
        device = {
            "deviceName": mapping["DeviceName"],
            "volumeId": mapping["Ebs"]["VolumeId"],
            "deleteOnTermination": mapping["Ebs"].get("DeleteOnTermination"),
            "volumeSize": volume.get("Size"),
            "volumeType": volume.get("VolumeType"),
            "encrypted": volume.get("Encrypted"),
            "iops": volume.get("Iops"),
            "throughput": volume.get("Throughput"),
            "kmsKeyId": volume.get("KmsKeyId"),
        }
        device = {key: value for key, value in device.items() if value is not None}
        if mapping["DeviceName"] == instance.get("RootDeviceName"):
            root = device
        else:
            others.append(device)
    return {"rootBlockDevice": root, "ebsBlockDevices": others}
