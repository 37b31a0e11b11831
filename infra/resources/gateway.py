"""The gateway's part of a stack: keys, who reaches whom, and the node itself."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.plan.assignments import Place
from infra.plan.gateway import CA_KEY, TLS_PORT, GatewayPlan, assignment, key_parameter
from infra.plan.plan import Node, Plan
from infra.resources import ports
from infra.resources.network import ANYWHERE, Network
from infra.resources.nodes import Address, AddressArgs
from infra.resources.record import WAIT_VARIABLE
from infra.resources.storage import drawn_once
from node_bootstrap.assignment import Archive, Assignment


@dataclass(frozen=True)
class GatewayArgs:
    """What the gateway is made from; plan.gateway is not None.

    allowed_cidrs: its clients; none where a load balancer is between them.
    """

    plan: Plan
    gate: GatewayPlan
    network: Network
    allowed_cidrs: tuple[str, ...]


class Gateway(pulumi.ComponentResource):
    """Security group, address and API keys of a gateway.

    keys: name -> value, secret. It is the only way in: clients reach its one port, it reaches the
    APIs and agents of the groups, and nobody from outside reaches the groups.
    """

    address: Address
    keys: dict[str, pulumi.Output[str]]

    def __init__(self, args: GatewayArgs, opts: pulumi.ResourceOptions) -> None:
        super().__init__("moe-serving:gateway:Gateway", "gateway", None, opts)
        self._args = args
        self._opts = pulumi.ResourceOptions(parent=self)
        self._group = args.network.security_group("gateway", "The endpoint, and its way to nodes")
        self._rules()
        self.address = Address(
            f"{args.gate.node}-address",
            AddressArgs(
                node=args.gate.node,
                subnet_id=args.network.subnet_id,
                security_group_ids=[self._group.id],
                efa=False,
            ),
            self._opts,
        )
        parameters = {
            key.name: self._key(key_parameter(args.plan.stack, key)) for key in self.asked
        }
        self.keys = {name: parameter.value for name, parameter in parameters.items()}
        self.register_outputs({"address": self.address.private_ip})

    @property
    def asked(self) -> Sequence[Any]:
        """The keys as they were asked for."""
        return self._args.gate.keys

    @property
    def group_id(self) -> pulumi.Output[str]:
        """Its security group."""
        return self._group.id

    @property
    def url(self) -> pulumi.Output[str]:
        """Base of the OpenAI API, without anything in front."""
        gate = self._args.gate
        if gate.domain:
            return pulumi.Output.from_input(f"{gate.scheme}://{gate.domain}/v1")
        return self.address.private_ip.apply(lambda ip: f"{gate.scheme}://{ip}/v1")

    def told(
        self,
        region: str,
        bucket: pulumi.Input[str],
        archive: Archive,
        addresses: Mapping[str, pulumi.Output[str]],
        names: Sequence[pulumi.Input[str]] = (),
    ) -> pulumi.Output[Assignment]:
        """The gateway's assignment. It has the digests of the keys, which tell nobody the keys.

        Args:
            region: of the stack.
            bucket: of the stack.
            archive: the bootstrap.
            addresses: private ones of the groups' nodes.
            names: further names by which clients reach it.
        """
        plan, node = self._args.plan, self._args.gate.node

        def fill_in(known: Mapping[str, Any]) -> Assignment:
            place = Place(region, known["bucket"], archive, known["addresses"])
            return assignment(plan, place, known["digests"], tuple(known["names"]))

        digests = {
            name: pulumi.Output.unsecret(value.apply(_digest)) for name, value in self.keys.items()
        }
        everywhere = {**addresses, node: self.address.private_ip}
        return pulumi.Output.all(
            bucket=bucket, addresses=everywhere, digests=digests, names=list(names)
        ).apply(fill_in)

    def outputs(self) -> dict[str, Any]:
        """What a client shows."""
        return {"api_key": self.keys[self.asked[0].name], "api_keys": self.keys}

    def certificate(
        self, bucket: pulumi.Input[str], provider: aws.Provider, after: pulumi.Resource
    ) -> pulumi.Output[str] | None:
        """The authority that clients must trust, in PEM; None without one, or where nothing boots.

        Args:
            bucket: that the gateway puts it into.
            provider: of the stack.
            after: what waits for the gateway.
        """
        if self._args.gate.tls != "internal" or os.environ.get(WAIT_VARIABLE) == "no":
            return None
        found = aws.s3.get_object_output(
            bucket=bucket,
            key=CA_KEY,
            opts=pulumi.InvokeOutputOptions(provider=provider, depends_on=[after]),
        )
        return found.body

    def _rules(self) -> None:
        args, own = self._args, self._group.id
        planned, members = args.plan.ports, args.network.members_id
        ports.from_cidrs("gateway", own, args.gate.port, self._opts, args.allowed_cidrs)
        # A port forward comes from a GPU node, whose image has the SSM agent.
        ports.ingress(
            "gateway-from-members",
            own,
            args.gate.port,
            self._opts,
            referenced_security_group_id=members,
        )
        if args.gate.port != TLS_PORT:
            ports.egress(
                "members-to-gateway",
                members,
                args.gate.port,
                self._opts,
                referenced_security_group_id=own,
            )
        ports.egress("gateway-to-https", own, 443, self._opts, cidr_ipv4=ANYWHERE)
        if args.network.plain_http:
            ports.egress("gateway-to-http", own, 80, self._opts, cidr_ipv4=ANYWHERE)
        # With an API per rank, those of one node stand at ports that follow each other.
        apis = [
            g.data_parallel_size_local for g in args.plan.groups if g.load_balancing == "external"
        ]
        wide = (("api", planned.api, max(apis, default=1)), ("agent", planned.agent, 1))
        for what, port, many in wide:
            ports.egress(
                f"gateway-to-{what}",
                own,
                port,
                self._opts,
                ports=many,
                referenced_security_group_id=members,
            )
            ports.ingress(
                f"{what}-from-gateway",
                members,
                port,
                self._opts,
                ports=many,
                referenced_security_group_id=own,
            )

    def _key(self, parameter: str) -> aws.ssm.Parameter:
        name = f"key-{parameter.rsplit('/', 1)[-1]}"
        return drawn_once(name, parameter, f"sk-{secrets.token_urlsafe(32)}", self)


def as_node(gate: GatewayPlan, secret_env: dict[str, str]) -> Node:
    """The gateway as a node that is launched like any other."""
    return Node(
        name=gate.node,
        position="primary",
        instance_type=gate.instance_type,
        first_rank=0,
        ranks=0,
        argv=(),
        env={},
        secret_env=secret_env,
        network_interfaces=gate.network_interfaces,
        software=gate.software,
        hardware=gate.hardware,
        address=gate.address,
    )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
