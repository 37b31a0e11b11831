"""A VPC's network: one namespace that is router and firewall, one bridge per subnet in it.

Ports of a bridge are isolated from each other and the bridge answers ARP for all of its subnet, so
every packet between instances is routed and meets the firewall. This machine's own network gets
one link and one route per VPC and is not touched otherwise.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from rehearsal.machine import dns, firewall, host, names, netns
from rehearsal.machine.interface import (
    ACCOUNT_ADDRESS,
    CLIENT_NETWORK,
    INDEX_ADDRESS,
    METADATA_ADDRESS,
    RESOLVER_ADDRESS,
    Launch,
    MachineError,
    Rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rehearsal.paths import Home

CLIENT_END = "client"
"""The link to this machine, seen from inside a VPC's namespace."""
ROUTER_SYSCTLS = {
    "ipv4/ip_forward": 1,
    # Instances of one subnet reach each other through the router; telling them of the short way
    # would end all traffic between them.
    "ipv4/conf/all/send_redirects": 0,
    "ipv4/conf/default/send_redirects": 0,
    "ipv6/conf/all/disable_ipv6": 1,
    "ipv6/conf/default/disable_ipv6": 1,
}


@dataclass(frozen=True)
class Vpc:
    """One VPC of one rehearsal."""

    home: Home
    vpc_id: str
    cidr: str

    @property
    def netns(self) -> str:
        """Its namespace."""
        return names.vpc_netns(self.home.tag, self.vpc_id)

    @property
    def folder(self) -> Path:
        """Files of its services."""
        return self.home.root / "networks" / self.vpc_id

    @property
    def whole(self) -> bool:
        """Whether its namespace is there and was built to the end."""
        return netns.exists(self.netns) and (self.folder / "built").exists()

    @property
    def client_link(self) -> str:
        """Its link in this machine's own network."""
        return names.client_link(self.home.tag, self.vpc_id)


def ensure(vpc: Vpc) -> bool:
    """Make a VPC's namespace and the way to it where missing; return whether it was.

    Raises:
        MachineError: this machine has a route that the VPC's addresses would collide with.
    """
    if vpc.whole:
        return False
    remove(vpc)
    with netns.machine_wide_lock():
        wire = free_client_network(vpc.cidr, _outer_routes())
        netns.create(vpc.netns)
        try:
            _build(vpc, wire)
        except MachineError:
            remove(vpc)
            raise
    vpc.folder.mkdir(parents=True, exist_ok=True)
    (vpc.folder / "built").touch()
    return True


def _build(vpc: Vpc, wire: IPv4Network) -> None:
    netns.sysctl(vpc.netns, ROUTER_SYSCTLS)
    services = (METADATA_ADDRESS, RESOLVER_ADDRESS, ACCOUNT_ADDRESS, INDEX_ADDRESS)
    netns.ip([f"address add {address}/32 dev lo" for address in services], netns=vpc.netns)
    firewall.apply(vpc.netns, firewall.ruleset(vpc.cidr, CLIENT_END, ()))
    outer, inner = wire[1], wire[2]
    netns.ip(
        [
            f"link add {vpc.client_link} type veth peer name {CLIENT_END} netns {vpc.netns}",
            f"address add {outer}/30 dev {vpc.client_link}",
            f"link set {vpc.client_link} up",
        ]
    )
    netns.ip([f"address add {inner}/30 dev {CLIENT_END}", f"link set {CLIENT_END} up"], vpc.netns)
    netns.ip([f"route add {vpc.cidr} via {inner} dev {vpc.client_link} src {outer}"])


def allow(vpc: Vpc, rules: Sequence[Rule]) -> None:
    """Replace what is allowed in a VPC, in one transaction."""
    firewall.apply(vpc.netns, firewall.ruleset(vpc.cidr, CLIENT_END, rules))


def attach(vpc: Vpc, launch: Launch) -> None:
    """Give an instance its namespace, its link and its place on its subnet's bridge.

    What is there already stays, so that an instance can start again after anything.
    """
    own = names.instance_netns(vpc.home.tag, launch.instance_id)
    port = names.port(launch.instance_id)
    bridge = names.bridge(launch.subnet_id)
    links = _links(vpc.netns)
    if bridge not in links:
        _add_bridge(vpc, bridge, launch.subnet_cidr)
    if port in links and netns.exists(own):
        return
    netns.create(own)
    netns.ip(
        [
            (
                f"link add {port} mtu {dns.MTU_BYTES} type veth "
                f"peer name ens5 address {launch.mac} mtu {dns.MTU_BYTES} netns {own}"
            ),
            f"link set {port} master {bridge}",
            # Learning off and a fixed entry: an address that moves to another instance is not
            # looked for behind the old one.
            f"link set {port} type bridge_slave isolated on learning off",
            f"link set {port} up",
            f"neighbour replace {launch.private_ip} lladdr {launch.mac} dev {bridge} nud permanent",
        ],
        netns=vpc.netns,
    )
    host.run(
        ["bridge", "-n", vpc.netns, "fdb", "replace", launch.mac, "dev", port, "master", "static"]
    )
    netns.ip(["link set ens5 up"], netns=own)


def serve(vpc: Vpc, launches: Sequence[Launch]) -> None:
    """Bring source check, leases and names to exactly these instances."""
    guard = {names.port(item.instance_id): item.private_ip for item in launches}
    firewall.apply(vpc.netns, firewall.port_guard(guard))
    dns.update(vpc.folder, vpc.netns, launches)


def detach(vpc: Vpc, launch: Launch) -> None:
    """Take an instance's link and namespace away."""
    if netns.exists(vpc.netns):
        port = names.port(launch.instance_id)
        if port in _links(vpc.netns):
            # By name and now: with its namespace alone it would linger until the kernel gets to it.
            netns.ip([f"link delete {port}"], netns=vpc.netns)
        _forget_neighbour(vpc, launch)
    netns.delete(names.instance_netns(vpc.home.tag, launch.instance_id))


def remove(vpc: Vpc) -> None:
    """Take a VPC's services, namespace, link and route away."""
    dns.stop(vpc.folder)
    if vpc.client_link in _links(None):
        netns.ip([f"link delete {vpc.client_link}"])  # and with it the route
    netns.delete(vpc.netns)
    if vpc.folder.is_dir():
        for path in vpc.folder.iterdir():
            path.unlink()
        vpc.folder.rmdir()


def free_client_network(vpc_cidr: str, routes: Iterable[str]) -> IPv4Network:
    """Pick the /30 between this machine and a VPC.

    Args:
        vpc_cidr: must not overlap a route.
        routes: destinations of this machine's routes, without the default one.

    Raises:
        MachineError: the VPC's addresses overlap a route, or no /30 is free.
    """
    taken = [IPv4Network(route, strict=False) for route in routes]
    for network in taken:
        if network.overlaps(IPv4Network(vpc_cidr)):
            raise MachineError(
                f"The VPC's addresses {vpc_cidr} collide with this machine's route to {network}: "
                "instances could not be reached from here. Give the VPC another CIDR block, or "
                "end what uses the route (`ip route show`); a rehearsal of another checkout ends "
                "with its `make down`."
            )
    for block in IPv4Network(CLIENT_NETWORK).subnets(new_prefix=24):
        wire = next(block.subnets(new_prefix=30))
        if not any(network.overlaps(wire) for network in taken):
            return wire
    raise MachineError(f"All of {CLIENT_NETWORK} is in use by routes of this machine.")


def _add_bridge(vpc: Vpc, bridge: str, subnet_cidr: str) -> None:
    subnet = IPv4Network(subnet_cidr)
    router = subnet[1]
    octets = ":".join(f"{octet:02x}" for octet in router.packed)
    netns.ip(
        [
            # An address of its own, or it would take that of its lowest port, and change.
            (
                f"link add {bridge} address 02:ff:{octets} mtu {dns.MTU_BYTES} "
                "type bridge mcast_snooping 0"
            ),
            f"address add {router}/{subnet.prefixlen} dev {bridge}",
            f"link set {bridge} up",
        ],
        netns=vpc.netns,
    )
    netns.sysctl(vpc.netns, {f"ipv4/conf/{bridge}/proxy_arp_pvlan": 1})


def _forget_neighbour(vpc: Vpc, launch: Launch) -> None:
    bridge = names.bridge(launch.subnet_id)
    known = host.run(["ip", "-n", vpc.netns, "-j", "neighbour", "show", launch.private_ip])
    for entry in json.loads(known or "[]"):
        # The address may belong to a successor already.
        if entry.get("lladdr") == launch.mac and entry.get("dev") == bridge:
            netns.ip([f"neighbour delete {launch.private_ip} dev {bridge}"], netns=vpc.netns)


def _links(namespace: str | None) -> set[str]:
    where = ["-n", namespace] if namespace else []
    return {link["ifname"] for link in _json(["ip", *where, "-j", "link", "show"])}


def _outer_routes() -> list[str]:
    routes = _json(["ip", "-4", "-j", "route", "show", "table", "main"])
    return [route["dst"] for route in routes if route["dst"] != "default"]


def _json(argv: list[str]) -> list[dict[str, Any]]:
    return json.loads(host.run(argv) or "[]")
