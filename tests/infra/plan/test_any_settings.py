"""Whatever the settings say: a plan or sentences, only flags of the release, only real launches."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from moto.ec2.models.instance_types import INSTANCE_TYPES

from infra import catalog, checks, model
from infra import settings as stack_settings
from infra.faults import SettingsError
from infra.plan.plan import Group, Node, Plan, to_json
from infra.planning import make_plan
from rehearsal.account.ec2.facts import InterfaceFacts, ReservationFacts, SubnetFacts, World
from rehearsal.account.ec2.launch import parse
from rehearsal.account.ec2.refusals import check_launch

if TYPE_CHECKING:
    from collections.abc import Iterator

spec = importlib.util.spec_from_file_location(
    "plan_strategies", Path(__file__).with_name("strategies.py")
)
assert spec
assert spec.loader
strategies = importlib.util.module_from_spec(spec)
spec.loader.exec_module(strategies)

ZONE, RESERVATION = "us-east-1a", "cr-0123456789abcdef0"


def plan_of(data: dict[str, Any]) -> Plan | None:
    """The plan, or None where the settings were refused in sentences."""
    try:
        judged = stack_settings.from_mapping(data, "any")
    except SettingsError:
        return None
    facts = model.facts(judged.model, Path())
    return make_plan("any", judged, facts, "us-east-1")


def flags_of(group: Group, node: Node) -> Iterator[tuple[str, str | None]]:
    """(flag, the word after it) of what the plan itself wrote."""
    own = node.argv[: len(node.argv) - len(group.options.extra_args)]
    for word, following in zip(own, (*own[1:], None), strict=True):
        if word.startswith("--"):
            yield word, following


def launch_of(plan: Plan, node: Node) -> dict[str, Any]:
    """What RunInstances is asked for: the primary interface is made beforehand."""
    interfaces = [
        {"NetworkCardIndex": n.network_card_index, "DeviceIndex": n.device_index}
        | (
            {"NetworkInterfaceId": "eni-1"}
            if n.network_card_index == n.device_index == 0
            else {"InterfaceType": n.interface_type, "SubnetId": "subnet-1", "Groups": ["sg-1"]}
        )
        for n in node.network_interfaces
    ]
    request: dict[str, Any] = {
        "ImageId": "ami-1",
        "InstanceType": node.instance_type,
        "NetworkInterfaces": interfaces,
    }
    if plan.placement_group:
        request["Placement"] = {"GroupName": "pg"}
    if plan.capacity.id:
        target = {"CapacityReservationId": plan.capacity.id}
        request["CapacityReservationSpecification"] = {"CapacityReservationTarget": target}
    if plan.capacity.kind in ("capacity-block", "spot"):
        request["InstanceMarketOptions"] = {"MarketType": plan.capacity.kind}
    return request


def world_of(plan: Plan, node: Node) -> World:
    """An account that has what the plan names, for this node's type."""
    block = plan.capacity.kind == "capacity-block"
    kind = "capacity-block" if block else "default"
    placement = "pg" if plan.placement_group else None
    return World(
        images=frozenset({"ami-1"}),
        instance_types={node.instance_type: INSTANCE_TYPES[node.instance_type]},
        subnets={"subnet-1": SubnetFacts("vpc-1", ZONE, "10.0.0.0/16", 60000, lambda _: False)},
        groups={"sg-1": "vpc-1"},
        interfaces={"eni-1": InterfaceFacts("subnet-1", "interface", in_use=False)},
        placement_groups=frozenset({"pg"}),
        reservations={
            RESERVATION: ReservationFacts(node.instance_type, ZONE, "active", 100, placement, kind)
        },
    )


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.files())
def test_anything_that_settings_can_say(data: dict[str, Any]):
    judge(data)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.likely_files())
def test_what_a_person_would_write(data: dict[str, Any]):
    judge(data)


def judge(data: dict[str, Any]):
    plan = plan_of(data)
    if plan is None:
        return
    findings = checks.run(plan)
    refused = any(found.severity is checks.Severity.ERROR for found in findings)
    release = catalog.release(plan.vllm_version)
    for group in plan.groups:
        for node in group.nodes:
            for flag, value in flags_of(group, node):
                known = release.flag(flag)
                assert known is not None, f"{flag} is not in vLLM {release.version}"
                fits = known.choices is None or value in known.choices
                assert fits or refused, f"{flag} {value} is no choice of vLLM {release.version}"
        if not refused:
            node = group.primary
            assert check_launch(parse(launch_of(plan, node)), world_of(plan, node)) is None
    assert to_json(plan, findings) == to_json(plan_of(data), checks.run(plan))
