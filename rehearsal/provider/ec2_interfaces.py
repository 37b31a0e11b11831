"""Elastic network interfaces."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

from typing import Any, ClassVar

from rehearsal.provider import ec2, shapes, tags
from rehearsal.provider.resource import Call, Change, Inputs, Resource, State


class NetworkInterface(Resource):
    """An elastic network interface that outlives the instances it is attached to."""

    pulumi_type = "aws:ec2/networkInterface:NetworkInterface"
    updatable = frozenset({"securityGroups", "description", "privateIps", "sourceDestCheck"})
    force_new = frozenset({"subnetId", "interfaceType", "privateIp", "region"})
    computed = frozenset(
        {"interfaceType", "privateIp", "privateIps", "privateIpsCount", "privateIpLists",
         "securityGroups", "attachments"}
    )  # fmt: skip
    sets = frozenset({"securityGroups", "privateIps", "attachments"})
    defaults: ClassVar = {"sourceDestCheck": True}
    unsupported = frozenset(
        {"attachments", "connectionTrackingSpecification", "enaSrdSpecification",
         "enablePrimaryIpv6", "ipv4PrefixCount", "ipv4Prefixes", "ipv6AddressListEnabled",
         "ipv6AddressLists", "ipv6Addresses", "ipv6PrefixCount", "ipv6Prefixes",
         "privateIpListEnabled", "privateIpLists"}
    )  # fmt: skip
    not_imported = frozenset({"privateIpLists", "privateIpsCount"})

    def create(self, call: Call, inputs: Inputs) -> str:
        asked: dict[str, Any] = {
            "subnetId": inputs["subnetId"],
            "description": inputs.get("description"),
            "interfaceType": inputs.get("interfaceType"),
            "groups": inputs.get("securityGroups"),
            "privateIpAddress": inputs.get("privateIp"),
            "secondaryPrivateIpAddressCount": inputs.get("privateIpsCount"),
            "ipv6AddressCount": inputs.get("ipv6AddressCount"),
        }
        asked = ec2.parameters(call, "CreateNetworkInterface", asked)
        addresses = inputs.get("privateIps") or []
        if addresses:
            asked["PrivateIpAddresses"] = [
                {"PrivateIpAddress": address, "Primary": index == 0}
                for index, address in enumerate(addresses)
            ]
        made = call.client("ec2").create_network_interface(
            **asked, TagSpecifications=tags.specification("network-interface", inputs)
        )
        return made["NetworkInterface"]["NetworkInterfaceId"]

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        found = call.wait(f"{rid} to be available", lambda: self._settled(call, rid))
        client, wanted = call.client("ec2"), inputs.get("sourceDestCheck", True)
        # an interface of type efa-only has no addresses and answers nothing here
        if found.get("SourceDestCheck") not in (None, wanted):
            client.modify_network_interface_attribute(
                NetworkInterfaceId=rid, SourceDestCheck={"Value": wanted}
            )

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        found = self._find(call, rid)
        if found is None:
            return None
        addresses = [entry["PrivateIpAddress"] for entry in found.get("PrivateIpAddresses") or []]
        return {
            "arn": call.arn("ec2", f"network-interface/{rid}"),
            "subnetId": found["SubnetId"],
            "description": found.get("Description") or None,
            "interfaceType": found.get("InterfaceType"),
            "macAddress": found.get("MacAddress"),
            "ownerId": found.get("OwnerId"),
            "privateDnsName": found.get("PrivateDnsName"),
            "privateIp": found.get("PrivateIpAddress"),
            "privateIps": addresses,
            "privateIpLists": addresses,
            "privateIpsCount": max(len(addresses) - 1, 0),
            "securityGroups": [group["GroupId"] for group in found.get("Groups") or []],
            "sourceDestCheck": found.get("SourceDestCheck"),
            "attachments": _attachments(found),
            "outpostArn": found.get("OutpostArn"),
            "tagsAll": shapes.tag_map(found.get("TagSet")),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        client = call.client("ec2")
        if change.any("securityGroups"):
            client.modify_network_interface_attribute(
                NetworkInterfaceId=rid, Groups=change.new["securityGroups"]
            )
        if change.any("description"):
            text = change.new.get("description", "")
            client.modify_network_interface_attribute(
                NetworkInterfaceId=rid, Description={"Value": text}
            )
        if change.any("privateIps"):
            self._addresses(call, rid, change)
        tags.sync_ec2(call, rid, change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        client = call.client("ec2")
        ec2.delete_when_free(
            call,
            lambda: client.delete_network_interface(NetworkInterfaceId=rid),
            "InvalidNetworkInterface.InUse",
            "InvalidParameterValue",
        )

    def _find(self, call: Call, rid: str) -> dict[str, Any] | None:
        key = "NetworkInterfaces"
        return ec2.find(call, "describe_network_interfaces", key, NetworkInterfaceIds=[rid])

    def _settled(self, call: Call, rid: str) -> dict[str, Any] | None:
        found = self._find(call, rid)
        return found if found and found["Status"] in ("available", "in-use") else None

    def _addresses(self, call: Call, rid: str, change: Change) -> None:
        client = call.client("ec2")
        before, after = change.state.get("privateIps") or [], change.new.get("privateIps") or []
        gone = [address for address in before if address not in after]
        new = [address for address in after if address not in before]
        if gone:
            client.unassign_private_ip_addresses(NetworkInterfaceId=rid, PrivateIpAddresses=gone)
        if new:
            client.assign_private_ip_addresses(NetworkInterfaceId=rid, PrivateIpAddresses=new)


def _attachments(found: dict[str, Any]) -> list[dict[str, Any]]:
    attachment = found.get("Attachment") or {}
    if not attachment.get("InstanceId"):
        return []
    return [
        {
            "attachmentId": attachment.get("AttachmentId", ""),
            "deviceIndex": attachment.get("DeviceIndex", 0),
            "instance": attachment["InstanceId"],
            "networkCardIndex": attachment.get("NetworkCardIndex", 0),
        }
    ]
