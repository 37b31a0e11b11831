"""VPC endpoints."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

from typing import Any, ClassVar

from rehearsal.provider import diff, ec2, shapes, tags
from rehearsal.provider.resource import MINUTE, Call, Change, Inputs, Resource, State, Timeouts


class VpcEndpoint(Resource):
    """A VPC endpoint of type Gateway or Interface."""

    pulumi_type = "aws:ec2/vpcEndpoint:VpcEndpoint"
    updatable = frozenset(
        {"routeTableIds", "subnetIds", "securityGroupIds", "policy", "privateDnsEnabled"}
    )
    force_new = frozenset({"vpcId", "serviceName", "vpcEndpointType", "region", "serviceRegion",
                           "serviceNetworkArn", "resourceConfigurationArn"})  # fmt: skip
    computed = frozenset({"dnsOptions", "ipAddressType", "policy", "privateDnsEnabled",
                          "routeTableIds", "securityGroupIds", "subnetIds", "serviceRegion",
                          "subnetConfigurations"})  # fmt: skip
    sets = frozenset({"routeTableIds", "securityGroupIds", "subnetIds"})
    policies = frozenset({"policy"})
    defaults: ClassVar = {"vpcEndpointType": "Gateway"}
    unsupported = frozenset({"autoAccept", "subnetConfigurations"})
    not_imported = frozenset({"dnsOptions", "ipAddressType", "serviceRegion"})
    timeouts = Timeouts(create=10 * MINUTE, update=10 * MINUTE, delete=10 * MINUTE)

    def create(self, call: Call, inputs: Inputs) -> str:
        names = {
            "vpcId", "serviceName", "vpcEndpointType", "routeTableIds", "securityGroupIds",
            "subnetIds", "privateDnsEnabled", "ipAddressType", "dnsOptions", "serviceRegion",
            "serviceNetworkArn", "resourceConfigurationArn",
        }  # fmt: skip
        asked = {key: inputs[key] for key in names & inputs.keys()}
        request = ec2.parameters(call, "CreateVpcEndpoint", asked)
        if inputs.get("policy"):
            request["PolicyDocument"] = inputs["policy"]
        made = call.client("ec2").create_vpc_endpoint(
            **request, TagSpecifications=tags.specification("vpc-endpoint", inputs)
        )
        return made["VpcEndpoint"]["VpcEndpointId"]

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        del inputs
        call.wait(f"{rid} to be available", lambda: self._available(call, rid))

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        endpoint = self._find(call, rid)
        if endpoint is None or endpoint["State"].lower() == "deleted":
            return None
        policy, asked = endpoint.get("PolicyDocument"), known.get("policy")
        if isinstance(asked, str) and isinstance(policy, str) and diff.same_json(asked, policy):
            policy = asked
        return {
            "arn": call.arn("ec2", f"vpc-endpoint/{rid}"),
            "vpcId": endpoint["VpcId"],
            "serviceName": endpoint["ServiceName"],
            "vpcEndpointType": endpoint["VpcEndpointType"],
            "state": endpoint["State"],
            "policy": policy,
            "privateDnsEnabled": endpoint.get("PrivateDnsEnabled", False),
            "routeTableIds": endpoint.get("RouteTableIds") or [],
            "subnetIds": endpoint.get("SubnetIds") or [],
            "networkInterfaceIds": endpoint.get("NetworkInterfaceIds") or [],
            "securityGroupIds": [group["GroupId"] for group in endpoint.get("Groups") or []],
            "requesterManaged": endpoint.get("RequesterManaged", False),
            "ownerId": endpoint.get("OwnerId"),
            "ipAddressType": endpoint.get("IpAddressType"),
            "dnsEntries": shapes.from_api(endpoint.get("DnsEntries") or []),
            "tagsAll": shapes.tag_map(endpoint.get("Tags")),
            **self._prefix_list(call, endpoint),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        asked: dict[str, Any] = {}
        for key, name in (("routeTableIds", "RouteTableIds"), ("subnetIds", "SubnetIds"),
                          ("securityGroupIds", "SecurityGroupIds")):  # fmt: skip
            before, after = set(change.old.get(key) or ()), set(change.new.get(key) or ())
            if after - before:
                asked[f"Add{name}"] = sorted(after - before)
            if before - after:
                asked[f"Remove{name}"] = sorted(before - after)
        if change.any("policy"):
            policy = change.new.get("policy")
            asked |= {"PolicyDocument": policy} if policy else {"ResetPolicy": True}
        if change.any("privateDnsEnabled"):
            asked["PrivateDnsEnabled"] = change.new["privateDnsEnabled"]
        if asked:
            call.client("ec2").modify_vpc_endpoint(VpcEndpointId=rid, **asked)
        tags.sync_ec2(call, rid, change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        answer = call.client("ec2").delete_vpc_endpoints(VpcEndpointIds=[rid])
        for failure in answer.get("Unsuccessful") or []:
            code = failure["Error"]["Code"]
            if not code.endswith("NotFound"):
                msg = f"{code}: {failure['Error'].get('Message', '')}"
                raise OSError(msg)
        call.wait(f"{rid} to be deleted", lambda: self.read(call, rid, {}) is None or None)

    def _find(self, call: Call, rid: str) -> dict[str, Any] | None:
        return ec2.find(call, "describe_vpc_endpoints", "VpcEndpoints", VpcEndpointIds=[rid])

    def _available(self, call: Call, rid: str) -> bool | None:
        endpoint = self._find(call, rid)
        settled = ("available", "pendingacceptance")
        return True if endpoint and endpoint["State"].lower() in settled else None

    def _prefix_list(self, call: Call, endpoint: dict[str, Any]) -> State:
        if endpoint["VpcEndpointType"] != "Gateway":
            return {}
        match = [{"Name": "prefix-list-name", "Values": [endpoint["ServiceName"]]}]
        found = call.client("ec2").describe_prefix_lists(Filters=match)["PrefixLists"]
        if not found:
            return {}
        return {"prefixListId": found[0]["PrefixListId"], "cidrBlocks": found[0].get("Cidrs") or []}
