"""Route tables, routes, associations."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

import zlib
from typing import Any

from rehearsal.provider import ec2, errors, shapes, tags
from rehearsal.provider.resource import MINUTE, Call, Change, Inputs, Resource, State, Timeouts

_TARGETS = {
    "carrierGatewayId": "CarrierGatewayId", "coreNetworkArn": "CoreNetworkArn",
    "egressOnlyGatewayId": "EgressOnlyInternetGatewayId", "gatewayId": "GatewayId",
    "localGatewayId": "LocalGatewayId", "natGatewayId": "NatGatewayId",
    "networkInterfaceId": "NetworkInterfaceId", "transitGatewayId": "TransitGatewayId",
    "vpcEndpointId": "VpcEndpointId", "vpcPeeringConnectionId": "VpcPeeringConnectionId",
    "odbNetworkArn": "OdbNetworkArn",
}  # fmt: skip
_DESTINATIONS = {
    "destinationCidrBlock": "DestinationCidrBlock",
    "destinationIpv6CidrBlock": "DestinationIpv6CidrBlock",
    "destinationPrefixListId": "DestinationPrefixListId",
}


class RouteTable(Resource):
    """A route table; routes written in it are all it may have, apart from the local ones."""

    pulumi_type = "aws:ec2/routeTable:RouteTable"
    updatable = frozenset({"routes"})
    force_new = frozenset({"vpcId", "region"})
    computed = frozenset({"routes", "propagatingVgws"})
    sets = frozenset({"routes"})
    not_imported = frozenset({"routes", "propagatingVgws"})
    unsupported = frozenset({"propagatingVgws"})
    timeouts = Timeouts(create=5 * MINUTE, update=2 * MINUTE, delete=5 * MINUTE)

    def create(self, call: Call, inputs: Inputs) -> str:
        made = call.client("ec2").create_route_table(
            VpcId=inputs["vpcId"], TagSpecifications=tags.specification("route-table", inputs)
        )
        return made["RouteTable"]["RouteTableId"]

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        found = call.wait(f"{rid} to be visible", lambda: find_table(call, rid))
        if "routes" not in inputs:
            return
        client = call.client("ec2")
        now = {_destination(route): route for route in _own_routes(found)}
        wanted = {_destination(_inline(route)): _inline(route) for route in inputs["routes"]}
        for destination in now.keys() - wanted.keys():
            client.delete_route(RouteTableId=rid, **dict([destination]))
        for destination, route in wanted.items():
            if destination not in now:
                client.create_route(RouteTableId=rid, **route)
            elif any(now[destination].get(key) != value for key, value in route.items()):
                client.replace_route(RouteTableId=rid, **route)

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        table = find_table(call, rid)
        if table is None:
            return None
        routes = [_inline_properties(route) for route in _own_routes(table)]
        asked = known.get("routes")
        if asked and sorted(map(_filled, asked)) == sorted(map(_filled, routes)):
            routes = list(asked)
        return {
            "arn": call.arn("ec2", f"route-table/{rid}"),
            "vpcId": table["VpcId"],
            "ownerId": table.get("OwnerId"),
            "routes": routes,
            "propagatingVgws": [vgw["GatewayId"] for vgw in table.get("PropagatingVgws") or []],
            "tagsAll": shapes.tag_map(table.get("Tags")),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        tags.sync_ec2(call, rid, change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        table = find_table(call, rid) or {}
        client = call.client("ec2")
        for association in table.get("Associations") or []:
            if not association.get("Main"):
                client.disassociate_route_table(
                    AssociationId=association["RouteTableAssociationId"]
                )
        ec2.delete_when_free(
            call, lambda: client.delete_route_table(RouteTableId=rid), "DependencyViolation"
        )


class Route(Resource):
    """One route; its id is made of the table and the destination, as the real provider makes it."""

    pulumi_type = "aws:ec2/route:Route"
    updatable = frozenset({*_TARGETS})
    force_new = frozenset({"routeTableId", *_DESTINATIONS, "region"})
    computed = frozenset({"networkInterfaceId"})
    timeouts = Timeouts(create=5 * MINUTE, update=2 * MINUTE, delete=5 * MINUTE)

    def check(self, inputs: Inputs) -> list[tuple[str, str]]:
        found = []
        if not _DESTINATIONS.keys() & inputs.keys():
            found.append(("destinationCidrBlock", "a route needs a destination"))
        if not _TARGETS.keys() & inputs.keys():
            found.append(("gatewayId", f"a route needs a target: one of {', '.join(_TARGETS)}"))
        return found

    def create(self, call: Call, inputs: Inputs) -> str:
        # a gateway that was just made is not known to the route tables for some seconds
        call.retry(
            lambda: call.client("ec2").create_route(**_route(inputs)),
            lambda error: errors.gone(error) or errors.code(error) == "InvalidParameterException",
            seconds=30.0,
        )
        return _route_id(inputs)

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        table, destination = _route_address(rid, known)
        found = find_table(call, table)
        for route in (found or {}).get("Routes") or []:
            if destination in route.values() and route.get("Origin") != "CreateRouteTable":
                return {
                    "routeTableId": table,
                    "origin": route.get("Origin"),
                    "state": route.get("State"),
                    "instanceId": route.get("InstanceId"),
                    "instanceOwnerId": route.get("InstanceOwnerId"),
                    **{key: route.get(api) for key, api in (_DESTINATIONS | _TARGETS).items()},
                }
        return None

    def update(self, call: Call, rid: str, change: Change) -> None:
        del rid
        call.client("ec2").replace_route(**_route(change.new))

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del rid
        destination = {api: state[key] for key, api in _DESTINATIONS.items() if state.get(key)}
        call.client("ec2").delete_route(RouteTableId=state["routeTableId"], **destination)


class RouteTableAssociation(Resource):
    """A subnet's or gateway's route table.

    The real provider changes the table in place (ReplaceRouteTableAssociation), which gives the
    association a new id; here the association is replaced, so that the id in the state stays true.
    """

    pulumi_type = "aws:ec2/routeTableAssociation:RouteTableAssociation"
    force_new = frozenset({"subnetId", "gatewayId", "routeTableId", "region"})
    delete_first = True

    def create(self, call: Call, inputs: Inputs) -> str:
        fields = {"subnetId": "SubnetId", "gatewayId": "GatewayId"}
        place = {api: inputs[key] for key, api in fields.items() if inputs.get(key)}
        made = call.client("ec2").associate_route_table(
            RouteTableId=inputs["routeTableId"], **place
        )
        return made["AssociationId"]

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        if not known and "/" in rid:  # an import names the subnet and the table
            msg = "importing an association needs its id (rtbassoc-…)"
            raise OSError(msg)
        match = [{"Name": "association.route-table-association-id", "Values": [rid]}]
        table = ec2.find(call, "describe_route_tables", "RouteTables", Filters=match)
        for association in (table or {}).get("Associations") or []:
            if association["RouteTableAssociationId"] == rid:
                return {
                    "routeTableId": association["RouteTableId"],
                    "subnetId": association.get("SubnetId"),
                    "gatewayId": association.get("GatewayId"),
                }
        return None

    def update(self, call: Call, rid: str, change: Change) -> None:
        """Every input replaces it."""

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        call.client("ec2").disassociate_route_table(AssociationId=rid)


def find_table(call: Call, rid: str) -> dict[str, Any] | None:
    """A route table, None where there is none."""
    return ec2.find(call, "describe_route_tables", "RouteTables", RouteTableIds=[rid])


def _own_routes(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Routes that someone made: not the local ones, and not a gateway endpoint's."""
    fields = {*_DESTINATIONS.values(), *_TARGETS.values()}
    return [
        {key: value for key, value in route.items() if key in fields and value}
        for route in table.get("Routes") or []
        if route.get("Origin") == "CreateRoute"
        and not str(route.get("GatewayId", "")).startswith("vpce-")
    ]


_INLINE = {"cidrBlock": "DestinationCidrBlock", "ipv6CidrBlock": "DestinationIpv6CidrBlock",
           "destinationPrefixListId": "DestinationPrefixListId"} | _TARGETS  # fmt: skip


def _inline(route: Inputs) -> dict[str, str]:
    return {api: route[key] for key, api in _INLINE.items() if route.get(key)}


def _inline_properties(route: dict[str, Any]) -> State:
    return {key: route[api] for key, api in _INLINE.items() if route.get(api)}


def _filled(route: Inputs) -> list[tuple[str, Any]]:
    return sorted((key, value) for key, value in route.items() if value)


def _destination(route: Inputs) -> tuple[str, str]:
    return next((api, route[api]) for api in _DESTINATIONS.values() if route.get(api))


def _route(inputs: Inputs) -> dict[str, Any]:
    fields = {**_DESTINATIONS, **_TARGETS, "routeTableId": "RouteTableId"}
    return {api: inputs[key] for key, api in fields.items() if inputs.get(key)}


def _route_id(inputs: Inputs) -> str:
    destination = next(inputs[key] for key in _DESTINATIONS if inputs.get(key))
    return f"r-{inputs['routeTableId']}{zlib.crc32(destination.encode())}"


def _route_address(rid: str, known: Inputs) -> tuple[str, str]:
    """(table, destination); an import names both as `rtb-…_destination`."""
    if known.get("routeTableId"):
        return known["routeTableId"], next(known[key] for key in _DESTINATIONS if known.get(key))
    table, _, destination = rid.partition("_")
    return table, destination
