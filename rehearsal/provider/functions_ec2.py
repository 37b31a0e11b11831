"""Functions of pulumi-aws that ask EC2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rehearsal.provider import shapes
from rehearsal.provider.resource import Call, Inputs, ProviderError, State

if TYPE_CHECKING:
    from collections.abc import Mapping


def availability_zones(call: Call, arguments: Inputs) -> State:
    """`getAvailabilityZones`."""
    query: dict[str, Any] = {"Filters": _filters(arguments)}
    if arguments.get("state"):
        query["Filters"].append({"Name": "state", "Values": [arguments["state"]]})
    if arguments.get("allAvailabilityZones"):
        query["AllAvailabilityZones"] = True
    zones = call.client("ec2").describe_availability_zones(**query)["AvailabilityZones"]
    without = {*arguments.get("excludeNames", ()), *arguments.get("excludeZoneIds", ())}
    kept = sorted(
        (zone for zone in zones if without.isdisjoint((zone["ZoneName"], zone.get("ZoneId")))),
        key=lambda zone: zone["ZoneName"],
    )
    return {
        "id": call.region,
        "region": call.region,
        "names": [zone["ZoneName"] for zone in kept],
        "zoneIds": [zone.get("ZoneId", "") for zone in kept],
        "groupNames": sorted({zone.get("GroupName", call.region) for zone in kept}),
    }


def instance_type(call: Call, arguments: Inputs) -> State:
    """`getInstanceType`."""
    name = arguments["instanceType"]
    answer = call.client("ec2").describe_instance_types(InstanceTypes=[name])["InstanceTypes"]
    kind = answer[0]
    cpu, memory, net = kind["VCpuInfo"], kind["MemoryInfo"], kind.get("NetworkInfo", {})
    processor, ebs = kind.get("ProcessorInfo", {}), kind.get("EbsInfo", {})
    storage, gpu = kind.get("InstanceStorageInfo", {}), kind.get("GpuInfo", {})
    placement = kind.get("PlacementGroupInfo", {})
    return {
        "id": name,
        "instanceType": name,
        "region": call.region,
        "currentGeneration": kind.get("CurrentGeneration"),
        "bareMetal": kind.get("BareMetal"),
        "hypervisor": kind.get("Hypervisor"),
        "freeTierEligible": kind.get("FreeTierEligible"),
        "burstablePerformanceSupported": kind.get("BurstablePerformanceSupported"),
        "hibernationSupported": kind.get("HibernationSupported"),
        "autoRecoverySupported": kind.get("AutoRecoverySupported"),
        "dedicatedHostsSupported": kind.get("DedicatedHostsSupported"),
        "defaultVcpus": cpu.get("DefaultVCpus"),
        "defaultCores": cpu.get("DefaultCores"),
        "defaultThreadsPerCore": cpu.get("DefaultThreadsPerCore"),
        "validCores": cpu.get("ValidCores"),
        "validThreadsPerCores": cpu.get("ValidThreadsPerCore"),
        "memorySize": memory.get("SizeInMiB"),
        "supportedArchitectures": processor.get("SupportedArchitectures"),
        "sustainedClockSpeed": processor.get("SustainedClockSpeedInGhz"),
        "supportedUsagesClasses": kind.get("SupportedUsageClasses"),
        "supportedRootDeviceTypes": kind.get("SupportedRootDeviceTypes"),
        "supportedVirtualizationTypes": kind.get("SupportedVirtualizationTypes"),
        "supportedPlacementStrategies": placement.get("SupportedStrategies"),
        "ebsOptimizedSupport": ebs.get("EbsOptimizedSupport"),
        "ebsNvmeSupport": ebs.get("NvmeSupport"),
        "ebsEncryptionSupport": ebs.get("EncryptionSupport"),
        "instanceStorageSupported": kind.get("InstanceStorageSupported"),
        "totalInstanceStorage": storage.get("TotalSizeInGB"),
        **_devices(storage, gpu),
        "totalGpuMemory": gpu.get("TotalGpuMemoryInMiB"),
        **_network(net),
    }


def _devices(storage: Mapping[str, Any], gpu: Mapping[str, Any]) -> State:
    return {
        "instanceDisks": [
            {"count": disk["Count"], "size": disk["SizeInGB"], "type": disk["Type"]}
            for disk in storage.get("Disks", [])
        ],
        "gpuses": [
            {
                "count": device["Count"],
                "manufacturer": device["Manufacturer"],
                "memorySize": device.get("MemoryInfo", {}).get("SizeInMiB", 0),
                "name": device["Name"],
            }
            for device in gpu.get("Gpus", [])
        ],
    }


def _network(net: Mapping[str, Any]) -> State:
    efa = net.get("EfaInfo", {})
    return {
        "networkPerformance": net.get("NetworkPerformance"),
        "enaSupport": net.get("EnaSupport"),
        "efaSupported": net.get("EfaSupported"),
        "efaMaximumInterfaces": efa.get("MaximumEfaInterfaces"),
        "ipv6Supported": net.get("Ipv6Supported"),
        "encryptionInTransitSupported": net.get("EncryptionInTransitSupported"),
        "maximumNetworkInterfaces": net.get("MaximumNetworkInterfaces"),
        "maximumIpv4AddressesPerInterface": net.get("Ipv4AddressesPerInterface"),
        "maximumIpv6AddressesPerInterface": net.get("Ipv6AddressesPerInterface"),
        "maximumNetworkCards": net.get("MaximumNetworkCards"),
        "defaultNetworkCardIndex": net.get("DefaultNetworkCardIndex"),
        "networkCards": [_card(card) for card in net.get("NetworkCards", [])],
    }


def _card(card: Mapping[str, Any]) -> State:
    return {
        "index": card["NetworkCardIndex"],
        "maximumInterfaces": card.get("MaximumNetworkInterfaces", 0),
        "performance": card.get("NetworkPerformance", ""),
        "baselineBandwidth": card.get("BaselineBandwidthInGbps", 0.0),
        "peakBandwidth": card.get("PeakBandwidthInGbps", 0.0),
    }


def instance_type_offerings(call: Call, arguments: Inputs) -> State:
    """`getInstanceTypeOfferings`."""
    query: dict[str, Any] = {"Filters": _filters(arguments)}
    if arguments.get("locationType"):
        query["LocationType"] = arguments["locationType"]
    pages = call.client("ec2").get_paginator("describe_instance_type_offerings").paginate(**query)
    found = [offer for page in pages for offer in page["InstanceTypeOfferings"]]
    return {
        "id": call.region,
        "region": call.region,
        "locationType": arguments.get("locationType"),
        "instanceTypes": [offer["InstanceType"] for offer in found],
        "locations": [offer["Location"] for offer in found],
        "locationTypes": [offer["LocationType"] for offer in found],
        "filters": arguments.get("filters"),
    }


def ami(call: Call, arguments: Inputs) -> State:
    """`getAmi`."""
    query: dict[str, Any] = {"Filters": _filters(arguments)}
    for name, api in (("owners", "Owners"), ("executableUsers", "ExecutableUsers")):
        if arguments.get(name):
            query[api] = arguments[name]
    images = call.client("ec2").describe_images(**query)["Images"]
    if arguments.get("mostRecent"):
        images = sorted(images, key=lambda image: image.get("CreationDate", ""))[-1:]
    if len(images) != 1:
        many = f"{len(images)} images match" if images else "no image matches"
        msg = f"wanted one image, but {many} {dict(arguments)}"
        raise ProviderError(msg)
    image = images[0]
    names = {
        "architecture", "creationDate", "deprecationTime", "description", "enaSupport",
        "hypervisor", "imageId", "imageLocation", "imageOwnerAlias", "imageType", "kernelId",
        "name", "ownerId", "platform", "platformDetails", "public", "rootDeviceName",
        "rootDeviceType", "sriovNetSupport", "state", "usageOperation", "virtualizationType",
    }  # fmt: skip
    state = shapes.from_api({key: value for key, value in image.items() if key != "Tags"})
    return {
        **{key: value for key, value in state.items() if key in names},
        "id": image["ImageId"],
        "arn": f"arn:{call.session.partition(call.region)}:ec2:{call.region}::image/"
        f"{image['ImageId']}",
        "region": call.region,
        "blockDeviceMappings": [_mapping(one) for one in image.get("BlockDeviceMappings", [])],
        "tags": shapes.tag_map(image.get("Tags")),
    }


def _mapping(mapping: Mapping[str, Any]) -> State:
    """A device of an image; as in the real provider, what is said of its volume are texts."""
    names = {
        "DeleteOnTermination": "delete_on_termination", "Encrypted": "encrypted", "Iops": "iops",
        "SnapshotId": "snapshot_id", "Throughput": "throughput", "VolumeSize": "volume_size",
        "VolumeType": "volume_type",
    }  # fmt: skip
    ebs = mapping.get("Ebs") or {}
    return {
        "deviceName": mapping.get("DeviceName", ""),
        "noDevice": mapping.get("NoDevice", ""),
        "virtualName": mapping.get("VirtualName", ""),
        "ebs": {
            name: str(ebs[api]).lower() if isinstance(ebs[api], bool) else str(ebs[api])
            for api, name in names.items()
            if api in ebs
        },
    }


def subnet(call: Call, arguments: Inputs) -> State:
    """`getSubnet`."""
    names = {
        "availabilityZone": "availability-zone", "availabilityZoneId": "availability-zone-id",
        "cidrBlock": "cidr-block", "state": "state", "vpcId": "vpc-id",
        "defaultForAz": "default-for-az",
    }  # fmt: skip
    found = _single(call, _Lookup("describe_subnets", "Subnets", "SubnetIds", names), arguments)
    state = shapes.from_api(
        {key: value for key, value in found.items() if key not in ("Tags", "SubnetArn")}
    )
    known = {
        "availabilityZone", "availabilityZoneId", "cidrBlock", "defaultForAz", "enableDns64",
        "ipv6Native", "mapPublicIpOnLaunch", "ownerId", "state", "vpcId",
        "assignIpv6AddressOnCreation", "outpostArn",
    }  # fmt: skip
    return {
        **{key: value for key, value in state.items() if key in known},
        "id": found["SubnetId"],
        "arn": found.get("SubnetArn"),
        "availableIpAddressCount": found.get("AvailableIpAddressCount"),
        "region": call.region,
        "tags": shapes.tag_map(found.get("Tags")),
    }


def vpc(call: Call, arguments: Inputs) -> State:
    """`getVpc`."""
    names = {
        "cidrBlock": "cidr", "dhcpOptionsId": "dhcp-options-id", "state": "state",
        "default": "isDefault",
    }  # fmt: skip
    found = _single(call, _Lookup("describe_vpcs", "Vpcs", "VpcIds", names), arguments)
    rid, client = found["VpcId"], call.client("ec2")
    dns = {
        name: client.describe_vpc_attribute(VpcId=rid, Attribute=name)[name[0].upper() + name[1:]]
        for name in ("enableDnsSupport", "enableDnsHostnames")
    }
    main = [
        {"Name": "vpc-id", "Values": [rid]},
        {"Name": "association.main", "Values": ["true"]},
    ]
    tables = client.describe_route_tables(Filters=main)["RouteTables"]
    return {
        "id": rid,
        "arn": call.arn("ec2", f"vpc/{rid}"),
        "cidrBlock": found["CidrBlock"],
        "default": found.get("IsDefault", False),
        "dhcpOptionsId": found.get("DhcpOptionsId"),
        "instanceTenancy": found.get("InstanceTenancy"),
        "ownerId": found.get("OwnerId"),
        "state": found.get("State"),
        "region": call.region,
        "mainRouteTableId": tables[0]["RouteTableId"] if tables else "",
        "tags": shapes.tag_map(found.get("Tags")),
        **{name: answer["Value"] for name, answer in dns.items()},
    }


def _filters(arguments: Inputs) -> list[dict[str, Any]]:
    given = arguments.get("filters") or []
    return [{"Name": entry["name"], "Values": entry["values"]} for entry in given]


@dataclass(frozen=True)
class _Lookup:
    """How one thing is looked up: boto3's method, its field and id parameter, and its filters."""

    operation: str
    field: str
    ids: str
    filters: Mapping[str, str]


def _single(call: Call, lookup: _Lookup, arguments: Inputs) -> dict[str, Any]:
    """The one thing that matches; none and several are errors, as with the real provider."""
    filters = _filters(arguments)
    for name, api in lookup.filters.items():
        value = arguments.get(name)
        if value not in (None, "", False):
            text = str(value).lower() if value is True else value
            filters.append({"Name": api, "Values": [text]})
    for key, value in (arguments.get("tags") or {}).items():
        filters.append({"Name": f"tag:{key}", "Values": [value]})
    query: dict[str, Any] = {"Filters": filters} if filters else {}
    if arguments.get("id"):
        query[lookup.ids] = [arguments["id"]]
    found = getattr(call.client("ec2"), lookup.operation)(**query)[lookup.field]
    if len(found) != 1:
        many = f"{len(found)} match" if found else "none matches"
        msg = f"wanted one of {lookup.field}, but {many} {dict(arguments)}"
        raise ProviderError(msg)
    return found[0]
