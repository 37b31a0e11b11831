"""A VPC and a subnet that are there already: taken as they are, once they were looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.resources.network import Existing
from infra.settings import NetworkSettings


@dataclass(frozen=True)
class Found:
    """What AWS says of a subnet."""

    id: str
    vpc_id: str
    zone: str


def existing(
    network: NetworkSettings,
    types: Iterable[str],
    offered: pulumi.Output[Mapping[str, Sequence[str]]],
    options: pulumi.InvokeOutputOptions,
) -> Existing | None:
    """The subnet that the settings name, looked at; None where a network is to be made.

    Args:
        network: the settings.
        types: instance types of the stack.
        offered: instance type -> zones that offer it.
        options: of the look-ups.
    """
    if network.vpc_id is None or network.subnet_id is None:
        return None
    wanted = sorted(set(types))
    subnet = aws.ec2.get_subnet_output(id=network.subnet_id, opts=options)

    def looked_at(known: Sequence[Any]) -> Found:
        answer, zones = known
        found = Found(answer.id, answer.vpc_id, answer.availability_zone)
        reasons = unfit(found, str(network.vpc_id), wanted, zones)
        if reasons:
            # Shown as its sentences alone: a traceback helps nobody to mend a setting.
            raise pulumi.RunError(
                f"network.subnet_id {found.id} can't hold this stack:\n"
                + "\n".join(f"  - {reason}" for reason in reasons)
            )
        return found

    found = pulumi.Output.all(subnet, offered).apply(looked_at)
    return Existing(
        vpc_id=found.apply(lambda f: f.vpc_id),
        subnet_id=found.apply(lambda f: f.id),
        zone=found.apply(lambda f: f.zone),
        public_subnet_id=network.public_subnet_id,
    )


def unfit(
    found: Found, vpc_id: str, types: Sequence[str], offered: Mapping[str, Sequence[str]]
) -> list[str]:
    """Why a subnet can't hold nodes of these types, one sentence per reason."""
    reasons = []
    if found.vpc_id != vpc_id:
        reasons.append(f"it is in {found.vpc_id}, not in network.vpc_id {vpc_id}: name both alike")
    for kind in types:
        zones = sorted(offered.get(kind, ()))
        if found.zone not in zones:
            reasons.append(
                f"its zone {found.zone} doesn't offer {kind} ({', '.join(zones) or 'none'} of this "
                "region do): take a subnet in one that does"
            )
    return reasons
