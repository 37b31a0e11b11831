"""Elastic IP addresses and NAT gateways."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

from typing import Any, ClassVar

from rehearsal.provider import ec2, errors, shapes, tags
from rehearsal.provider.resource import MINUTE, Call, Change, Inputs, Resource, State, Timeouts


class Eip(Resource):
    """An Elastic IP address, associated with an interface or instance."""

    pulumi_type = "aws:ec2/eip:Eip"
    updatable = frozenset({"instance", "networkInterface", "associateWithPrivateIp"})
    force_new = frozenset({"domain", "address", "networkBorderGroup", "publicIpv4Pool", "region",
                           "customerOwnedIpv4Pool", "ipamPoolId"})  # fmt: skip
    computed = frozenset({"domain", "instance", "networkBorderGroup", "networkInterface",
                          "publicIpv4Pool", "ipamPoolId"})  # fmt: skip
    not_imported = frozenset({"instance", "networkBorderGroup", "publicIpv4Pool"})
    timeouts = Timeouts(create=15 * MINUTE, update=5 * MINUTE, delete=3 * MINUTE)

    def create(self, call: Call, inputs: Inputs) -> str:
        fields = {
            "address": "Address", "networkBorderGroup": "NetworkBorderGroup",
            "publicIpv4Pool": "PublicIpv4Pool", "customerOwnedIpv4Pool": "CustomerOwnedIpv4Pool",
            "ipamPoolId": "IpamPoolId",
        }  # fmt: skip
        asked = {api: inputs[key] for key, api in fields.items() if inputs.get(key)}
        made = call.client("ec2").allocate_address(
            Domain=inputs.get("domain", "vpc"),
            TagSpecifications=tags.specification("elastic-ip", inputs),
            **asked,
        )
        return made["AllocationId"]

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        address = call.wait(f"{rid} to be visible", lambda: self._find(call, rid))
        target = {
            api: inputs[key]
            for key, api in (("instance", "InstanceId"), ("networkInterface", "NetworkInterfaceId"))
            if inputs.get(key)
        }
        if not target or all(address.get(api) == value for api, value in target.items()):
            return
        if inputs.get("associateWithPrivateIp"):
            target["PrivateIpAddress"] = inputs["associateWithPrivateIp"]
        # an instance that was just started takes addresses only once it runs
        call.retry(
            lambda: call.client("ec2").associate_address(AllocationId=rid, **target),
            lambda error: (
                errors.code(error) in ("InvalidInstanceID", "InvalidAllocationID.NotFound")
            ),
            seconds=5 * MINUTE,
        )

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        address = self._find(call, rid)
        if address is None:
            return None
        public, private = address.get("PublicIp"), address.get("PrivateIpAddress")
        return {
            "allocationId": rid,
            "arn": call.arn("ec2", f"elastic-ip/{rid}"),
            "associationId": address.get("AssociationId") or None,
            "domain": address.get("Domain"),
            "instance": address.get("InstanceId") or None,
            "networkInterface": address.get("NetworkInterfaceId") or None,
            "networkBorderGroup": address.get("NetworkBorderGroup"),
            "publicIpv4Pool": address.get("PublicIpv4Pool"),
            "privateIp": private or None,
            "privateDns": _private_dns(private, call.region) if private else None,
            "publicIp": public,
            "publicDns": _public_dns(public, call.region) if public else None,
            "tagsAll": shapes.tag_map(address.get("Tags")),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        if change.any("instance", "networkInterface", "associateWithPrivateIp"):
            self._disassociate(call, change.state.get("associationId"))
        tags.sync_ec2(call, rid, change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        address = self._find(call, rid) or {}
        self._disassociate(call, address.get("AssociationId") or state.get("associationId"))
        client = call.client("ec2")
        ec2.delete_when_free(
            call,
            lambda: client.release_address(AllocationId=rid),
            "InvalidIPAddress.InUse",
            "AuthFailure",
        )

    def _find(self, call: Call, rid: str) -> dict[str, Any] | None:
        return ec2.find(call, "describe_addresses", "Addresses", AllocationIds=[rid])

    def _disassociate(self, call: Call, association: str | None) -> None:
        if not association:
            return
        try:
            call.client("ec2").disassociate_address(AssociationId=association)
        except Exception as error:
            if not errors.gone(error):
                raise


class NatGateway(Resource):
    """A NAT gateway."""

    pulumi_type = "aws:ec2/natGateway:NatGateway"
    force_new = frozenset({"allocationId", "connectivityType", "privateIp", "subnetId", "region"})
    computed = frozenset({"privateIp", "secondaryAllocationIds", "secondaryPrivateIpAddresses",
                          "secondaryPrivateIpAddressCount", "vpcId", "availabilityMode",
                          "availabilityZoneAddresses"})  # fmt: skip
    defaults: ClassVar = {"connectivityType": "public"}
    unsupported = frozenset({"availabilityMode", "availabilityZoneAddresses", "vpcId",
                             "secondaryAllocationIds", "secondaryPrivateIpAddressCount",
                             "secondaryPrivateIpAddresses"})  # fmt: skip
    not_imported = unsupported
    timeouts = Timeouts(create=10 * MINUTE, delete=30 * MINUTE)

    def create(self, call: Call, inputs: Inputs) -> str:
        names = {"allocationId", "connectivityType", "subnetId"}
        asked: dict[str, Any] = {key: inputs[key] for key in names & inputs.keys()}
        asked["privateIpAddress"] = inputs.get("privateIp")
        made = call.client("ec2").create_nat_gateway(
            **ec2.parameters(call, "CreateNatGateway", asked),
            TagSpecifications=tags.specification("natgateway", inputs),
        )
        return made["NatGateway"]["NatGatewayId"]

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        del inputs
        call.wait(f"{rid} to be available", lambda: self._available(call, rid))

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        gateway = self._find(call, rid)
        if gateway is None or gateway["State"] == "deleted":
            return None
        address = next(iter(gateway.get("NatGatewayAddresses") or []), {})
        return {
            "allocationId": address.get("AllocationId"),
            "associationId": address.get("AssociationId"),
            "connectivityType": gateway.get("ConnectivityType", "public"),
            "networkInterfaceId": address.get("NetworkInterfaceId"),
            "privateIp": address.get("PrivateIp"),
            "publicIp": address.get("PublicIp"),
            "subnetId": gateway.get("SubnetId"),
            "vpcId": gateway.get("VpcId"),
            "tagsAll": shapes.tag_map(gateway.get("Tags")),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        tags.sync_ec2(call, rid, change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        call.client("ec2").delete_nat_gateway(NatGatewayId=rid)
        call.wait(f"{rid} to be deleted", lambda: self.read(call, rid, {}) is None or None)

    def _find(self, call: Call, rid: str) -> dict[str, Any] | None:
        return ec2.find(call, "describe_nat_gateways", "NatGateways", NatGatewayIds=[rid])

    def _available(self, call: Call, rid: str) -> bool | None:
        gateway = self._find(call, rid)
        if gateway and gateway["State"] == "failed":
            raise OSError(gateway.get("FailureMessage") or f"{rid} failed")
        return True if gateway and gateway["State"] == "available" else None


def _private_dns(address: str, region: str) -> str:
    domain = "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"
    return f"ip-{address.replace('.', '-')}.{domain}"


def _public_dns(address: str, region: str) -> str:
    domain = "compute-1" if region == "us-east-1" else f"{region}.compute"
    return f"ec2-{address.replace('.', '-')}.{domain}.amazonaws.com"
