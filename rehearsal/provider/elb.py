"""Load balancers, network and application."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from rehearsal.provider import shapes
from rehearsal.provider.elb_common import NAME_LENGTH, Balancing, attribute_list, find, typed
from rehearsal.provider.naming import Naming, unique_name

if TYPE_CHECKING:
    from rehearsal.provider.resource import Call, Change, Inputs, State

_BALANCER_ATTRIBUTES = {
    "enableDeletionProtection": "deletion_protection.enabled",
    "enableCrossZoneLoadBalancing": "load_balancing.cross_zone.enabled",
    "idleTimeout": "idle_timeout.timeout_seconds",
    "enableHttp2": "routing.http2.enabled",
    "dropInvalidHeaderFields": "routing.http.drop_invalid_header_fields.enabled",
    "desyncMitigationMode": "routing.http.desync_mitigation_mode",
    "clientKeepAlive": "client_keep_alive.seconds",
    "preserveHostHeader": "routing.http.preserve_host_header.enabled",
    "xffHeaderProcessingMode": "routing.http.xff_header_processing.mode",
    "enableXffClientPort": "routing.http.xff_client_port.enabled",
}


class LoadBalancer(Balancing):
    """A network or application load balancer."""

    pulumi_type = "aws:lb/loadBalancer:LoadBalancer"
    updatable = frozenset({*_BALANCER_ATTRIBUTES, "subnets", "securityGroups", "ipAddressType"})
    force_new = frozenset({"name", "namePrefix", "internal", "loadBalancerType", "region",
                           "customerOwnedIpv4Pool"})  # fmt: skip
    computed = frozenset({*_BALANCER_ATTRIBUTES, "internal", "ipAddressType", "namePrefix",
                          "securityGroups", "subnetMappings", "subnets"})  # fmt: skip
    sets = frozenset({"securityGroups", "subnets"})
    defaults: ClassVar = {"loadBalancerType": "application", "enableDeletionProtection": False}
    naming = Naming(max_length=NAME_LENGTH)
    not_imported = frozenset({"namePrefix", "subnetMappings"})
    unsupported = frozenset(
        {"accessLogs", "connectionLogs", "healthCheckLogs", "ipamPools",
         "minimumLoadBalancerCapacity",
         "enableZonalShift", "enableWafFailOpen", "dnsRecordClientRoutingPolicy",
         "enablePrefixForIpv6SourceNat", "enableTlsVersionAndCipherSuiteHeaders",
         "enforceSecurityGroupInboundRulesOnPrivateLinkTraffic", "customerOwnedIpv4Pool",
         "secondaryIpsAutoAssignedPerSubnet"}
    )  # fmt: skip

    def create(self, call: Call, inputs: Inputs) -> str:
        asked: dict[str, Any] = {
            "Name": inputs.get("name") or unique_name(inputs["namePrefix"])[:NAME_LENGTH],
            "Type": inputs["loadBalancerType"],
            "Scheme": "internal" if inputs.get("internal") else "internet-facing",
        }
        wanted = inputs.get("tagsAll") or {}
        fields = {"subnets": "Subnets", "securityGroups": "SecurityGroups",
                  "ipAddressType": "IpAddressType"}  # fmt: skip
        asked |= {api: inputs[key] for key, api in fields.items() if inputs.get(key)}
        if inputs.get("subnetMappings"):
            fields = {"subnetId": "SubnetId", "allocationId": "AllocationId",
                      "privateIpv4Address": "PrivateIPv4Address",
                      "ipv6Address": "IPv6Address"}  # fmt: skip
            asked["SubnetMappings"] = [
                {api: mapping[key] for key, api in fields.items() if mapping.get(key)}
                for mapping in inputs["subnetMappings"]
            ]
        if wanted:
            asked["Tags"] = shapes.tag_list(wanted)
        made = call.client("elbv2").create_load_balancer(**asked)
        return made["LoadBalancers"][0]["LoadBalancerArn"]

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        call.wait(f"{rid} to be active", lambda: self._active(call, rid))
        now = self._attributes(call, rid)
        changed = attribute_list(_BALANCER_ATTRIBUTES, inputs, now)
        if changed:
            call.client("elbv2").modify_load_balancer_attributes(
                LoadBalancerArn=rid, Attributes=changed
            )

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        found = self._find(call, rid)
        if found is None:
            return None
        zones = found.get("AvailabilityZones") or []
        return {
            "arn": rid,
            "arnSuffix": rid.split(":loadbalancer/", 1)[-1],
            "name": found["LoadBalancerName"],
            "dnsName": found.get("DNSName"),
            "zoneId": found.get("CanonicalHostedZoneId"),
            "vpcId": found.get("VpcId"),
            "internal": found.get("Scheme") == "internal",
            "loadBalancerType": found.get("Type"),
            "ipAddressType": found.get("IpAddressType"),
            "securityGroups": found.get("SecurityGroups") or [],
            "subnets": [zone["SubnetId"] for zone in zones],
            "tagsAll": self.tags_of(call, rid),
            **typed(_BALANCER_ATTRIBUTES, self._attributes(call, rid)),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        client = call.client("elbv2")
        if change.any("subnets"):
            client.set_subnets(LoadBalancerArn=rid, Subnets=change.new["subnets"])
        if change.any("securityGroups"):
            groups = change.new["securityGroups"]
            client.set_security_groups(LoadBalancerArn=rid, SecurityGroups=groups)
        if change.any("ipAddressType"):
            client.set_ip_address_type(
                LoadBalancerArn=rid, IpAddressType=change.new["ipAddressType"]
            )
        self.sync_tags(call, rid, change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        call.client("elbv2").delete_load_balancer(LoadBalancerArn=rid)
        call.wait(f"{rid} to be deleted", lambda: self._find(call, rid) is None or None)

    def _find(self, call: Call, rid: str) -> dict[str, Any] | None:
        query = {"LoadBalancerArns": [rid]}
        return find(call, "describe_load_balancers", "LoadBalancers", **query)

    def _active(self, call: Call, rid: str) -> bool | None:
        found = self._find(call, rid)
        return True if found and found["State"]["Code"] == "active" else None

    def _attributes(self, call: Call, rid: str) -> dict[str, str]:
        answer = call.client("elbv2").describe_load_balancer_attributes(LoadBalancerArn=rid)
        return {entry["Key"]: entry["Value"] for entry in answer["Attributes"]}
