"""Quotas of the account against what runs and what the stack asks for."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from infra import catalog
from infra.preflight.aws import Aws, code_of, is_own
from infra.preflight.check import Check, always
from infra.preflight.result import Verdict, failed, passed, skipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from infra.preflight.asked import Asked


@dataclass(frozen=True)
class Quota:
    """A quota of Service Quotas: its service, code and name there."""

    service: str
    code: str
    name: str


STANDARD, G, P = "Standard (A, C, D, H, I, M, R, T, Z)", "G and VT", "P"
VCPU_QUOTAS: Mapping[tuple[str, str], Quota] = {
    (STANDARD, "on-demand"): Quota("ec2", "L-1216C47A", "Running On-Demand Standard instances"),
    (G, "on-demand"): Quota("ec2", "L-DB2E81BA", "Running On-Demand G and VT instances"),
    (P, "on-demand"): Quota("ec2", "L-417A185B", "Running On-Demand P instances"),
    (STANDARD, "spot"): Quota("ec2", "L-34B43A08", "All Standard Spot Instance Requests"),
    (G, "spot"): Quota("ec2", "L-3819A6DF", "All G and VT Spot Instance Requests"),
    (P, "spot"): Quota("ec2", "L-7212CCBC", "All P Spot Instance Requests"),
}
"""Capacity Blocks count against none of them."""
INTERFACES = Quota("vpc", "L-DF5E4CA3", "Network interfaces per Region")
ELASTIC_IPS = Quota("ec2", "L-0263D0A3", "EC2-VPC Elastic IPs")
VPCS = Quota("vpc", "L-F678F1CE", "VPCs per Region")


_OTHER_CLASSES = ("dl", "hpc", "inf", "mac", "trn")
"""Families with quotas of their own, whose letters would pass for another class's."""


def class_of(instance_type: str) -> str | None:
    """The class of a type that vCPU quotas know; None for classes that no stack can have."""
    letters = re.match(r"[a-z]*", instance_type)
    family = letters[0] if letters else ""
    if family in _OTHER_CLASSES:
        return None
    if family.startswith(("g", "vt")):
        return G
    if family == "p":
        return P
    return STANDARD if family[:1] in set("acdhimrtz") else None


def _vcpus(aws: Aws, asked: Asked) -> Iterator[Verdict]:
    wanted: Counter[tuple[str, str]] = Counter()
    for name, (kind, count) in asked.nodes.items():
        group, purchase = class_of(kind), asked.purchase(name)
        # An existing reservation counts already, whether or not anything runs in it.
        reserved = asked.capacity_kind == "reservation" and kind in asked.reserved_nodes
        if group is not None and purchase != "capacity-block" and not reserved:
            wanted[group, purchase] += count * catalog.instance_type(kind).vcpus
    if not wanted:
        yield passed("capacity that is reserved already counts against no further quota")
        return
    used = _used(aws, asked.stack)
    for key, needed in wanted.items():
        yield judge(VCPU_QUOTAS[key], _value(aws, VCPU_QUOTAS[key]), used[key], needed, "vCPUs")


def _used(aws: Aws, stack: str) -> Counter[tuple[str, str]]:
    """How many vCPUs other stacks run or hold in reservations, by class and purchase."""
    held: Counter[tuple[str, str]] = Counter()
    states = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    for reservation in aws.pages("describe_instances", "Reservations", Filters=states):
        for instance in reservation["Instances"]:
            if not is_own(instance, stack):
                purchase = instance.get("InstanceLifecycle") or "on-demand"
                held[instance["InstanceType"], purchase] += 1
    for reservation in aws.pages("describe_capacity_reservations", "CapacityReservations"):
        block = reservation.get("ReservationType") == "capacity-block"
        if reservation["State"] == "active" and not block and not is_own(reservation, stack):
            held[reservation["InstanceType"], "on-demand"] += reservation["AvailableInstanceCount"]
    sizes = _sizes(aws, {kind for kind, _ in held})
    used: Counter[tuple[str, str]] = Counter()
    for (kind, purchase), count in held.items():
        used[class_of(kind) or "", purchase] += count * sizes[kind]
    return used


def _sizes(aws: Aws, types: Iterable[str]) -> Mapping[str, int]:
    """The vCPUs of types: EC2 counts a type's own, whatever CPU options an instance has."""
    known = catalog.instance_types()
    sizes = {kind: catalog.instance_type(kind).vcpus for kind in types if kind in known}
    unknown = sorted(set(types) - set(sizes))
    for start in range(0, len(unknown), 100):  # DescribeInstanceTypes takes a hundred names
        wanted = unknown[start : start + 100]
        for item in aws.pages("describe_instance_types", "InstanceTypes", InstanceTypes=wanted):
            sizes[item["InstanceType"]] = item["VCpuInfo"]["DefaultVCpus"]
    return sizes


def _interfaces(aws: Aws, asked: Asked) -> Iterator[Verdict]:
    found = aws.pages("describe_network_interfaces", "NetworkInterfaces")
    used = sum(not is_own(item, asked.stack) for item in found)
    yield judge(INTERFACES, _value(aws, INTERFACES), used, asked.interfaces, "interfaces")


def _elastic_ips(aws: Aws, asked: Asked) -> Iterator[Verdict]:
    found = aws.pages("describe_addresses", "Addresses")
    used = sum(not is_own(item, asked.stack) for item in found)
    yield judge(ELASTIC_IPS, _value(aws, ELASTIC_IPS), used, asked.elastic_ips, "addresses")


def _vpcs(aws: Aws, asked: Asked) -> Iterator[Verdict]:
    used = sum(not is_own(item, asked.stack) for item in aws.pages("describe_vpcs", "Vpcs"))
    yield judge(VPCS, _value(aws, VPCS), used, 1, "VPCs")


def judge(quota: Quota, value: float | None, used: int, needed: int, unit: str) -> Verdict:
    """Whether the stack fits beside what is there. used: of others, without the stack itself."""
    what = f"{quota.name} ({quota.service} {quota.code})"
    told = f"the stack needs {needed} {unit}, {used} are in use elsewhere"
    if value is None:
        return skipped(f"{what}: {told}; AWS tells no quota", "look at Service Quotas by hand")
    if used + needed <= value:
        return passed(f"{what}: {told}, the quota is {value:g}")
    return failed(
        f"{what}: {told}, and the quota is {value:g}",
        f"ask Service Quotas for {used + needed} in this region; GPU types take days",
    )


def _value(aws: Aws, quota: Quota) -> float | None:
    """The account's own value, else AWS's default; None where AWS knows neither."""
    names: dict[str, Any] = {"ServiceCode": quota.service, "QuotaCode": quota.code}
    for ask in (aws.quotas.get_service_quota, aws.quotas.get_aws_default_service_quota):
        try:
            return float(ask(**names)["Quota"]["Value"])
        except ClientError as error:
            if code_of(error) != "NoSuchResourceException":
                raise
    return None


CHECKS = (
    Check(
        "PREFLIGHT_VCPU_QUOTA",
        "moe-serving:groups",
        "The vCPU quotas leave room beside what runs.",
        (
            "servicequotas:GetServiceQuota",
            "servicequotas:GetAWSDefaultServiceQuota",
            "ec2:DescribeInstances",
            "ec2:DescribeCapacityReservations",
            "ec2:DescribeInstanceTypes",
        ),
        always,
        _vcpus,
    ),
    Check(
        "PREFLIGHT_INTERFACE_QUOTA",
        "moe-serving:groups",
        "The quota of network interfaces leaves room: 33 for each p5.48xlarge.",
        ("servicequotas:GetServiceQuota", "ec2:DescribeNetworkInterfaces"),
        always,
        _interfaces,
    ),
    Check(
        "PREFLIGHT_ELASTIC_IP_QUOTA",
        "moe-serving:network",
        "The quota of elastic IPs leaves room.",
        ("servicequotas:GetServiceQuota", "ec2:DescribeAddresses"),
        lambda asked: asked.elastic_ips > 0,
        _elastic_ips,
    ),
    Check(
        "PREFLIGHT_VPC_QUOTA",
        "moe-serving:network",
        "The quota of VPCs leaves room for the stack's own; AWS gives five.",
        ("servicequotas:GetServiceQuota", "ec2:DescribeVpcs"),
        lambda asked: asked.makes_network,
        _vpcs,
    ),
)
