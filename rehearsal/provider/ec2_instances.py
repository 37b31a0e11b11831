"""Instances: launching, following their state, changing them in place, terminating."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, ClassVar

from rehearsal.provider import ec2, tags
from rehearsal.provider import ec2_instance_changes as changes
from rehearsal.provider.ec2_instance_life import (
    PROPAGATION_SECONDS,
    find,
    is_gone,
    profile_unseen,
    started,
)
from rehearsal.provider.ec2_instance_state import properties, runs_version
from rehearsal.provider.ec2_templates import versions_of
from rehearsal.provider.resource import (
    MINUTE,
    Call,
    Change,
    Inputs,
    ProviderError,
    Resource,
    State,
    Timeouts,
)
from rehearsal.provider.shapes import tag_list

if TYPE_CHECKING:
    from collections.abc import Callable

_DIRECT = (
    "capacityReservationSpecification", "cpuOptions", "creditSpecification", "disableApiStop",
    "disableApiTermination", "ebsOptimized", "enclaveOptions", "enablePrimaryIpv6",
    "instanceInitiatedShutdownBehavior", "instanceMarketOptions", "instanceType", "keyName",
    "maintenanceOptions", "metadataOptions", "privateDnsNameOptions",
)  # fmt: skip
"""Inputs that RunInstances takes as they are."""
_PLACEMENT = {
    "availabilityZone": "AvailabilityZone", "placementGroup": "GroupName",
    "placementGroupId": "GroupId", "placementPartitionNumber": "PartitionNumber",
    "tenancy": "Tenancy", "hostId": "HostId", "hostResourceGroupArn": "HostResourceGroupArn",
}  # fmt: skip


class Instance(Resource):
    """An instance.

    What replaces it follows the real provider (terraform-provider-aws
    internal/service/ec2/ec2_instance.go): besides the inputs below, another launch template id or
    name, and another launch template *version* where the instance doesn't run that one already.
    User data that comes from a launch template is not kept in the state.
    """

    pulumi_type = "aws:ec2/instance:Instance"
    updatable = changes.UPDATABLE
    force_new = frozenset(
        {
            "ami", "associatePublicIpAddress", "availabilityZone", "ebsOptimized", "hibernation",
            "hostId", "ipv6AddressCount", "ipv6Addresses", "keyName", "launchTemplate.id",
            "launchTemplate.name", "placementGroup", "placementGroupId",
            "placementPartitionNumber", "privateDnsNameOptions", "privateIp", "securityGroups",
            "subnetId", "tenancy", "region", "networkInterfaces", "primaryNetworkInterface",
            "ebsBlockDevices", "enclaveOptions", "rootBlockDevice.encrypted", "enablePrimaryIpv6",
            "rootBlockDevice.kmsKeyId", "instanceMarketOptions", "cpuOptions",
        }
    )  # fmt: skip
    computed = frozenset(
        {
            "ami", "associatePublicIpAddress", "availabilityZone", "cpuOptions",
            "capacityReservationSpecification", "disableApiStop", "disableApiTermination",
            "ebsBlockDevices", "ebsOptimized", "enclaveOptions", "hostId", "iamInstanceProfile",
            "instanceInitiatedShutdownBehavior", "instanceMarketOptions", "instanceType",
            "ipv6AddressCount", "ipv6Addresses", "keyName", "maintenanceOptions",
            "metadataOptions", "monitoring", "networkInterfaces", "placementGroup",
            "placementGroupId", "placementPartitionNumber", "privateDnsNameOptions", "privateIp",
            "rootBlockDevice", "secondaryPrivateIps", "securityGroups", "subnetId", "tenancy",
            "vpcSecurityGroupIds", "primaryNetworkInterface", "sourceDestCheck",
        }
    )  # fmt: skip
    sets = frozenset({"vpcSecurityGroupIds", "securityGroups", "secondaryPrivateIps"})
    defaults: ClassVar = {
        "forceDestroy": False,
        "getPasswordData": False,
        "userDataReplaceOnChange": False,
    }
    not_imported = frozenset({"networkInterfaces", "securityGroups", "primaryNetworkInterface"})
    unsupported = frozenset(
        {"ephemeralBlockDevices", "getPasswordData", "hibernation", "secondaryNetworkInterfaces"}
    )
    timeouts = Timeouts(create=10 * MINUTE, update=10 * MINUTE, delete=20 * MINUTE)

    def check(self, inputs: Inputs) -> list[tuple[str, str]]:
        if "launchTemplate" in inputs:
            return []
        needed = ("ami", "instanceType")
        reason = "is needed where no launchTemplate is given"
        return [(key, f"{key} {reason}") for key in needed if key not in inputs]

    def create(self, call: Call, inputs: Inputs) -> str:
        request = self._request(call, inputs)
        made = call.retry(
            lambda: call.client("ec2").run_instances(**request),
            profile_unseen,
            PROPAGATION_SECONDS,
        )
        return made["Instances"][0]["InstanceId"]

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        instance = call.wait(f"{rid} to run", lambda: started(call, rid))
        if "sourceDestCheck" in inputs and len(instance.get("NetworkInterfaces") or []) == 1:
            self._source_dest_check(call, instance, wanted=inputs["sourceDestCheck"])

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        instance = find(call, rid)
        if instance is None or instance["State"]["Name"] == "terminated":
            return None
        return properties(call, instance, known)

    def update(self, call: Call, rid: str, change: Change) -> None:
        tags.sync_ec2(call, rid, change)
        changes.apply(call, rid, change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        client = call.client("ec2")
        if state.get("forceDestroy"):
            for name in ("DisableApiTermination", "DisableApiStop"):
                client.modify_instance_attribute(InstanceId=rid, **{name: {"Value": False}})
        client.terminate_instances(InstanceIds=[rid])
        call.wait(f"{rid} to terminate", lambda: is_gone(call, rid))

    def replaces(self, call: Callable[[], Call], rid: str, change: Change) -> frozenset[str]:
        forced = set()
        if change.new.get("userDataReplaceOnChange"):
            forced |= {"userData", "userDataBase64"} & change.keys
        before = (change.old.get("launchTemplate") or {}).get("version")
        after = (change.new.get("launchTemplate") or {}).get("version")
        if before != after and not runs_version(after, change.state, _resolver(call, rid)):
            forced.add("launchTemplate.version")
        return frozenset(forced)

    def _request(self, call: Call, inputs: Inputs) -> dict[str, Any]:
        asked: dict[str, Any] = {key: inputs[key] for key in _DIRECT if key in inputs}
        asked |= {"imageId": inputs.get("ami")}
        request = ec2.parameters(call, "RunInstances", asked)
        request |= {"MinCount": 1, "MaxCount": 1}
        if "monitoring" in inputs:
            request["Monitoring"] = {"Enabled": inputs["monitoring"]}
        if inputs.get("iamInstanceProfile"):
            request["IamInstanceProfile"] = {"Name": inputs["iamInstanceProfile"]}
        placement = {api: inputs[key] for key, api in _PLACEMENT.items() if inputs.get(key)}
        if placement:
            request["Placement"] = placement
        if inputs.get("launchTemplate"):
            request["LaunchTemplate"] = _template_reference(inputs["launchTemplate"])
        if "userDataBase64" in inputs:
            request["UserData"] = base64.b64decode(inputs["userDataBase64"])  # botocore encodes it
        elif "userData" in inputs:
            request["UserData"] = inputs["userData"]
        devices = self._devices(call, inputs)
        if devices:
            request["BlockDeviceMappings"] = devices
        wanted = tags.specification("instance", inputs)
        if inputs.get("volumeTags"):
            wanted.append({"ResourceType": "volume", "Tags": tag_list(inputs["volumeTags"])})
        return {**request, **_network(inputs), "TagSpecifications": wanted}

    def _devices(self, call: Call, inputs: Inputs) -> list[dict[str, Any]]:
        devices = [
            _device(device, device["deviceName"]) for device in inputs.get("ebsBlockDevices") or []
        ]
        root = inputs.get("rootBlockDevice")
        if root:
            image = inputs.get("ami")
            if not image:
                msg = "rootBlockDevice needs ami: the device's name is the image's"
                raise ProviderError(msg)
            found = ec2.find(call, "describe_images", "Images", ImageIds=[image])
            if found is None:
                msg = f"there is no image {image}"
                raise ProviderError(msg)
            devices.insert(0, _device(root, found.get("RootDeviceName", "/dev/xvda")))
        return devices

    def _source_dest_check(self, call: Call, instance: dict[str, Any], *, wanted: bool) -> None:
        if instance.get("SourceDestCheck", True) != wanted:
            call.client("ec2").modify_instance_attribute(
                InstanceId=instance["InstanceId"], SourceDestCheck={"Value": wanted}
            )


def _resolver(call: Callable[[], Call], rid: str) -> Callable[[str], tuple[str, str, str]]:
    """Looks up (version that runs, default, latest), where a `$Latest` makes that necessary."""

    def resolve(template: str) -> tuple[str, str, str]:
        now = call()
        instance = find(now, rid) or {}
        found = {tag["Key"]: tag["Value"] for tag in instance.get("Tags") or []}
        return (found.get("aws:ec2launchtemplate:version", ""), *versions_of(now, template))

    return resolve


def _template_reference(template: Inputs) -> dict[str, str]:
    fields = {"id": "LaunchTemplateId", "name": "LaunchTemplateName", "version": "Version"}
    reference = {api: str(template[key]) for key, api in fields.items() if template.get(key)}
    if "LaunchTemplateId" in reference:
        reference.pop("LaunchTemplateName", None)
    return reference


def _network(inputs: Inputs) -> dict[str, Any]:
    """Where and how it is attached: through interfaces of its own where one is described."""
    interfaces = [
        {
            "NetworkInterfaceId": nic["networkInterfaceId"],
            "DeviceIndex": nic["deviceIndex"],
            "NetworkCardIndex": nic.get("networkCardIndex", 0),
            "DeleteOnTermination": nic.get("deleteOnTermination", False),
        }
        for nic in inputs.get("networkInterfaces") or []
    ]
    primary = inputs.get("primaryNetworkInterface")
    if primary:
        interfaces.insert(
            0, {"NetworkInterfaceId": primary["networkInterfaceId"], "DeviceIndex": 0}
        )
    if interfaces:
        return {"NetworkInterfaces": interfaces}
    fields = {
        "subnetId": "SubnetId", "privateIp": "PrivateIpAddress",
        "vpcSecurityGroupIds": "SecurityGroupIds", "ipv6AddressCount": "Ipv6AddressCount",
    }  # fmt: skip
    placed: dict[str, Any] = {api: inputs[key] for key, api in fields.items() if inputs.get(key)}
    if inputs.get("ipv6Addresses"):
        placed["Ipv6Addresses"] = [{"Ipv6Address": a} for a in inputs["ipv6Addresses"]]
    secondary = inputs.get("secondaryPrivateIps") or []
    if "associatePublicIpAddress" not in inputs and not secondary:
        if inputs.get("securityGroups"):
            placed["SecurityGroups"] = inputs["securityGroups"]
        return placed
    interface = {"DeviceIndex": 0, **placed}
    interface["Groups"] = interface.pop("SecurityGroupIds", [])
    if "associatePublicIpAddress" in inputs:
        interface["AssociatePublicIpAddress"] = inputs["associatePublicIpAddress"]
    if secondary:
        interface.pop("PrivateIpAddress", None)
        addresses = [a for a in (inputs.get("privateIp"), *secondary) if a]
        interface["PrivateIpAddresses"] = [
            {"PrivateIpAddress": address, "Primary": address == inputs.get("privateIp")}
            for address in addresses
        ]
    return {"NetworkInterfaces": [interface]}


def _device(device: Inputs, name: str) -> dict[str, Any]:
    fields = {
        "deleteOnTermination": "DeleteOnTermination", "encrypted": "Encrypted", "iops": "Iops",
        "kmsKeyId": "KmsKeyId", "snapshotId": "SnapshotId", "throughput": "Throughput",
        "volumeSize": "VolumeSize", "volumeType": "VolumeType",
    }  # fmt: skip
    other = sorted(device.keys() - fields.keys() - {"deviceName"})
    if other:
        msg = f"this provider does not support {', '.join(other)} of a block device"
        raise ProviderError(msg)
    ebs = {api: device[key] for key, api in fields.items() if key in device}
    return {"DeviceName": name, "Ebs": {"DeleteOnTermination": True, **ebs}}
