"""EC2 instance types as data: what one has, what its network cards carry, what it costs."""

from __future__ import annotations

import difflib
import functools
import json
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any


class UnknownNameError(LookupError):
    """A name is not in the catalog; says which ones come near."""

    def __init__(self, what: str, name: str, known: list[str]) -> None:
        self.what, self.name = what, name
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        super().__init__(f"{what} {name!r} is not in the catalog.{hint}")


@dataclass(frozen=True)
class Gpus:
    """The GPUs of one instance: `memory_mib` is what EC2 states per GPU."""

    count: int
    name: str
    memory_mib: int


@dataclass(frozen=True)
class NetworkCard:
    """One network card: how many interfaces it takes, and of which EC2 interface types."""

    index: int
    max_interfaces: int
    interface_types: tuple[str, ...]
    baseline_gbps: float
    peak_gbps: float

    @property
    def efa_only(self) -> bool:
        """Whether the card carries an interface of type `efa-only`."""
        return "efa-only" in self.interface_types


@dataclass(frozen=True)
class LocalDisks:
    """Instance store: `count` disks of `size_gb` (10^9 bytes) each."""

    count: int
    size_gb: int


@dataclass(frozen=True)
class Price:
    """On-demand Linux price of one instance hour, with the place and the day it was read for."""

    usd_per_hour: float
    region: str
    date: str


@dataclass(frozen=True)
class InstanceType:
    """One EC2 instance type."""

    name: str
    vcpus: int
    memory_gib: float
    architecture: str
    cpu_manufacturer: str
    gpus: Gpus | None
    network_cards: tuple[NetworkCard, ...]
    max_network_interfaces: int
    max_efa: int
    network_gbps: float
    network_burst: bool
    ebs_gbps: float
    local_disks: LocalDisks | None
    usage_classes: tuple[str, ...]
    cluster_placement: bool
    nitro_version: int | None
    nvlink_domain_gpus: int
    rdma_read: bool
    rdma_write: bool
    kernel_initiated_efa: bool
    further_card_ip_gbps: float | None
    price: Price | None

    @property
    def family(self) -> str:
        """The part before the dot, such as `p5en`."""
        return self.name.split(".")[0]

    @property
    def gpu_count(self) -> int:
        """GPUs of the instance, 0 for a CPU type."""
        return self.gpus.count if self.gpus else 0

    @property
    def efa_gbps(self) -> float:
        """Bandwidth that EFA can use in Gbit/s, 0 where the type has no EFA."""
        return self.network_gbps if self.max_efa else 0.0

    @property
    def ena_gbps(self) -> float:
        """Bandwidth of one IP interface on network card 0, in Gbit/s (its peak)."""
        return self.network_cards[0].peak_gbps

    def ip_gbps_of(self, card_index: int) -> float:
        """Gbit/s that an ENA interface on that card carries."""
        if card_index and self.further_card_ip_gbps is not None:
            return self.further_card_ip_gbps
        return self.network_cards[card_index].peak_gbps

    @property
    def capacity_blocks(self) -> bool:
        """Whether EC2 sells Capacity Blocks of this type."""
        return "capacity-block" in self.usage_classes


def instance_type(name: str) -> InstanceType:
    """The type of that name; UnknownNameError with near names when the catalog lacks it."""
    types = instance_types()
    if name not in types:
        raise UnknownNameError("instance type", name, sorted(types))
    return types[name]


@functools.cache
def instance_types() -> dict[str, InstanceType]:
    """Every instance type of the catalog by name. Treat the dictionary as read-only."""
    folder = resources.files(__package__ or "infra.catalog")
    described = json.loads((folder / "instance_types.json").read_text())
    facts = tomllib.loads((folder / "instance_facts.toml").read_text())
    prices = tomllib.loads((folder / "prices.toml").read_text())
    return {r["name"]: _instance_type(r, facts["family"], prices) for r in described["types"]}


def _instance_type(record: dict[str, Any], facts: dict[str, Any], prices: Any) -> InstanceType:
    fact = facts.get(record["name"].split(".")[0], {})
    gpus = record["gpus"]
    usd = prices["usd_per_hour"].get(record["name"])
    return InstanceType(
        name=record["name"],
        vcpus=record["vcpus"],
        memory_gib=record["memory_mib"] / 1024,
        architecture=record["architecture"],
        cpu_manufacturer=record["cpu_manufacturer"],
        gpus=Gpus(**gpus) if gpus else None,
        network_cards=tuple(_cards(record["network_cards"])),
        max_network_interfaces=record["max_network_interfaces"],
        max_efa=record["max_efa"],
        network_gbps=float(record["network_gbps"]),
        network_burst=record["network_burst"],
        ebs_gbps=record["ebs_gbps"],
        local_disks=LocalDisks(**record["local_disks"]) if record["local_disks"] else None,
        usage_classes=tuple(record["usage_classes"]),
        cluster_placement=record["cluster_placement"],
        nitro_version=fact.get("nitro_version"),
        nvlink_domain_gpus=gpus["count"] if gpus and fact.get("nvlink") else int(bool(gpus)),
        rdma_read=bool(record["max_efa"] and fact.get("rdma_read")),
        rdma_write=bool(record["max_efa"] and fact.get("rdma_write")),
        kernel_initiated_efa=fact.get("kernel_initiated_efa", False),
        further_card_ip_gbps=fact.get("further_card_ip_gbps"),
        price=Price(usd, prices["region"], prices["date"]) if usd else None,
    )


def _cards(runs: list[dict[str, Any]]) -> list[NetworkCard]:
    """Equal neighbouring cards are one run in the file."""
    return [
        NetworkCard(
            index=run["first_index"] + i,
            max_interfaces=run["max_interfaces"],
            interface_types=tuple(run["interface_types"]),
            baseline_gbps=float(run["baseline_gbps"]),
            peak_gbps=float(run["peak_gbps"]),
        )
        for run in runs
        for i in range(run["count"])
    ]
