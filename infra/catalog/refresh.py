"""Regenerate `instance_types.json` from the EC2 API: `python -m infra.catalog.refresh --region …`.

The only part of the catalog that talks to AWS; nothing else imports it. It needs
`ec2:DescribeInstanceTypes`. The file keeps what EC2 states; what EC2 does not state (NVLink, RDMA,
prices) stays in `instance_facts.toml` and `prices.toml`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FAMILIES = (
    *("p4d", "p4de", "p5", "p5e", "p5en", "p6-b200", "p6-b300"),
    *("g5", "g6", "g6e", "g7", "g7e"),
    *("c6a", "c6i", "c7a", "c7i", "c7i-flex", "c8i", "m6a", "m6i", "m7a", "m7i", "m7i-flex"),
    *("m8i", "r7i", "t3"),
)
"""Families that the product can use: GPU families with EFA sizes, and x86 CPU families."""

_PERFORMANCE = re.compile(r"(?P<burst>Up to )?(?:(?P<times>\d+)x )?(?P<gbps>[\d.]+) Gigabit")


def condense(description: Mapping[str, Any]) -> dict[str, Any]:
    """One record of the catalog from one `InstanceTypes[]` of DescribeInstanceTypes."""
    network = description["NetworkInfo"]
    gbps, burst = network_gbps(network["NetworkPerformance"])
    ebs = description["EbsInfo"].get("EbsOptimizedInfo", {})
    return {
        "name": description["InstanceType"],
        "vcpus": description["VCpuInfo"]["DefaultVCpus"],
        "memory_mib": description["MemoryInfo"]["SizeInMiB"],
        "architecture": description["ProcessorInfo"]["SupportedArchitectures"][-1],
        "cpu_manufacturer": description["ProcessorInfo"]["Manufacturer"],
        "gpus": _gpus(description.get("GpuInfo")),
        "network_cards": _card_runs(network["NetworkCards"]),
        "max_network_interfaces": network["MaximumNetworkInterfaces"],
        "max_efa": network.get("EfaInfo", {}).get("MaximumEfaInterfaces", 0),
        "network_gbps": gbps,
        "network_burst": burst,
        "ebs_gbps": ebs.get("MaximumBandwidthInMbps", 0) / 1000,
        "local_disks": _disks(description.get("InstanceStorageInfo")),
        "usage_classes": sorted(description["SupportedUsageClasses"]),
        "cluster_placement": "cluster" in description["PlacementGroupInfo"]["SupportedStrategies"],
    }


def network_gbps(performance: str) -> tuple[float, bool]:
    """Gbit/s and whether it is only a burst, from EC2's `4x 100 Gigabit` or `Up to 10 Gigabit`."""
    match = _PERFORMANCE.fullmatch(performance)
    if not match:  # `Low to Moderate` and the like, of types older than any used here
        raise ValueError(f"EC2 states the network performance {performance!r}; no rule reads it")
    return float(match["gbps"]) * int(match["times"] or 1), bool(match["burst"])


def wanted(name: str) -> bool:
    """Whether a type belongs in the catalog; bare metal can't run the node image as it is."""
    family, _, size = name.partition(".")
    return family in FAMILIES and not size.startswith("metal")


def document(descriptions: Iterable[Mapping[str, Any]], source: str, date: str) -> str:
    """The text of `instance_types.json`: one type per line, sorted by name."""
    records = [condense(d) for d in descriptions if wanted(d["InstanceType"])]
    lines = [json.dumps(r) for r in sorted(records, key=lambda r: _natural(r["name"]))]
    head = f'{{\n"source": {json.dumps(source)},\n"date": {json.dumps(date)},\n"types": [\n'
    return head + ",\n".join(lines) + "\n]\n}\n"


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(p) if p.isdigit() else -1, p) for p in re.split(r"(\d+)", name)]


def _gpus(info: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not info:
        return None
    gpu = info["Gpus"][0]
    # Fractional sizes (g6f) would state a GpuPartitionSize below 1; no family above has them.
    memory = gpu["MemoryInfo"]["SizeInMiB"]
    return {"count": gpu["Count"], "name": gpu["Name"], "memory_mib": memory}


def _disks(info: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not info:
        return None
    disk = info["Disks"][0]
    return {"count": disk["Count"], "size_gb": disk["SizeInGB"]}


def _card_runs(cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def form(card: dict[str, Any]) -> dict[str, Any]:
        return {
            "max_interfaces": card["MaximumNetworkInterfaces"],
            "interface_types": card["InterfaceTypes"],
            "baseline_gbps": card["BaselineBandwidthInGbps"],
            "peak_gbps": card["PeakBandwidthInGbps"],
        }

    runs: list[dict[str, Any]] = []
    ordered = sorted(cards, key=lambda c: c["NetworkCardIndex"])
    for shape, group in itertools.groupby(ordered, key=form):
        members = list(group)
        first = members[0]["NetworkCardIndex"]
        runs.append({"first_index": first, "count": len(members), **shape})
    return runs


def describe(regions: list[str]) -> list[dict[str, Any]]:
    """Ask EC2 in each region and join: no single region offers every type."""
    import boto3  # noqa: PLC0415  # the pure part of this module is imported without it

    found: dict[str, dict[str, Any]] = {}
    for region in regions:
        pages = boto3.client("ec2", region_name=region).get_paginator("describe_instance_types")
        for page in pages.paginate(
            Filters=[{"Name": "instance-type", "Values": [f"{f}.*" for f in FAMILIES]}]
        ):
            for description in page["InstanceTypes"]:
                found.setdefault(description.get("InstanceType", ""), dict(description))
    return list(found.values())


def main() -> None:
    """Write `instance_types.json` next to this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--region", action="append", help="may be given more than once")
    regions = parser.parse_args().region or ["us-east-1", "us-east-2", "us-west-2"]
    source = f"EC2 DescribeInstanceTypes in {', '.join(regions)}"
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    target = Path(__file__).parent / "instance_types.json"
    target.write_text(document(describe(regions), source, today))
    print(f"{target}: written")


if __name__ == "__main__":
    main()
