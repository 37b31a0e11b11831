"""What EC2 refuses at launch or forgives at a price, as far as it can be known offline."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from infra.checks.finding import Severity
from infra.checks.rule import Hit, Hits, rule

if TYPE_CHECKING:
    from collections.abc import Mapping

_CAPACITY = "capacity.kind"
_BLOCKS = "EC2 user guide: Capacity Blocks for ML"
_BLOCK_INSTANCES = 64
_INTERFACES_PER_REGION = 5000
_USER_DATA_BYTES = 16 * 1024
_HUGGING_FACE_GIB = 50.0
_LIMIT_GBPS = 5


@rule(
    Severity.ERROR,
    _CAPACITY,
    consequence="EC2 refuses every launch into the block",
    remedy="no placement group: a Capacity Block's instances are placed together anyway",
    source=_BLOCKS,
    example="`capacity: {kind: capacity-block, id: cr-…}` in a placement group.",
    scope="stack",
    suppressible=False,
)
def capacity_block_placement_group(*, capacity_kind: str, placement_group: bool) -> Hits:
    """A launch that targets a Capacity Block must not name a placement group."""
    if capacity_kind == "capacity-block" and placement_group:
        yield Hit("the stack has a placement group and runs in a Capacity Block")


@rule(
    Severity.ERROR,
    "capacity.id",
    consequence="EC2 has nothing to launch into",
    remedy="capacity.id: the cr-… of the reservation or block; this project never buys one",
    source=_BLOCKS,
    example="`capacity: {kind: capacity-block}` without an id.",
    scope="stack",
)
def capacity_without_id(*, capacity_kind: str, capacity_id: str | None) -> Hits:
    """A reservation or Capacity Block that exists already must be named."""
    if capacity_kind in ("reservation", "capacity-block") and not capacity_id:
        yield Hit(f"capacity is a {capacity_kind} and none is named")


@rule(
    Severity.WARNING,
    "capacity.id",
    consequence="The id is not used: the reservation is paid for and stays empty",
    remedy="capacity.kind: reservation or capacity-block, or leave the id out",
    source="EC2 user guide: On-Demand Capacity Reservations (targeted matching)",
    example="`capacity: {kind: on-demand, id: cr-…}`.",
    scope="stack",
)
def capacity_id_unused(*, capacity_kind: str, capacity_id: str | None) -> Hits:
    """An id without a kind that uses it."""
    if capacity_id and capacity_kind not in ("reservation", "capacity-block"):
        yield Hit(f"capacity.id is {capacity_id} and capacity.kind is {capacity_kind}")


@rule(
    Severity.ERROR,
    _CAPACITY,
    consequence="There is no such block to launch into",
    remedy="on-demand, reserve or reservation; or a type that is sold in Capacity Blocks",
    source=_BLOCKS,
    example="`capacity: {kind: capacity-block}` with g6e.48xlarge.",
    scope="stack",
)
def capacity_block_type(*, capacity_kind: str, no_capacity_blocks: tuple[str, ...]) -> Hits:
    """EC2 sells Capacity Blocks of P and Trn types only."""
    if capacity_kind == "capacity-block" and no_capacity_blocks:
        yield Hit(f"EC2 sells no Capacity Blocks of {', '.join(no_capacity_blocks)}")


@rule(
    Severity.ERROR,
    "capacity.id",
    consequence="The nodes that don't fit are refused at launch while the others are paid for",
    remedy="one block per 64 instances, in stacks of their own",
    source=_BLOCKS,
    example="72 x p5.48xlarge in one block.",
    scope="stack",
)
def capacity_block_size(
    *, capacity_kind: str, types: tuple[tuple[str, str, str, int], ...]
) -> Hits:
    """A Capacity Block has at most 64 instances of one type."""
    if capacity_kind != "capacity-block":
        return
    counts: Counter[str] = Counter()
    for _, _, instance_type, count in types:
        counts[instance_type] += count
    if len(counts) > 1:
        yield Hit(f"one block can't hold {', '.join(sorted(counts))}: it has one type")
    for instance_type, count in sorted(counts.items()):
        if count > _BLOCK_INSTANCES:
            yield Hit(f"{count} x {instance_type}; a block has up to {_BLOCK_INSTANCES}")


@rule(
    Severity.WARNING,
    _CAPACITY,
    consequence="AWS ends the nodes from 30 minutes before the block's end (11:30 UTC), and sells"
    " no refund",
    remedy="know the block's end (`moe preflight`, then `moe status`), and have the next one before"
    " it",
    source=_BLOCKS,
    example="`capacity: {kind: capacity-block, id: cr-…}`.",
    scope="stack",
)
def capacity_block_ends(*, capacity_kind: str) -> Hits:
    """A Capacity Block ends on a date, whatever runs in it."""
    if capacity_kind == "capacity-block":
        yield Hit("the nodes run in a Capacity Block")


@rule(
    Severity.WARNING,
    _CAPACITY,
    consequence="One reclaimed node stops its whole group: vLLM has no partial groups",
    remedy="on-demand or reserve for groups of several nodes; spot for groups that fit one",
    source="EC2 user guide: Spot interruptions; vllm-project/vllm#39942",
    example="`capacity: {kind: spot}` with `nodes: 2`.",
    scope="stack",
)
def spot_multi_node(*, capacity_kind: str, multi_node_groups: tuple[str, ...]) -> Hits:
    """Spot capacity is for groups of one node."""
    if capacity_kind == "spot" and multi_node_groups:
        yield Hit(f"spot instances carry groups of several nodes ({', '.join(multi_node_groups)})")


@rule(
    Severity.ERROR,
    _CAPACITY,
    consequence="EC2 refuses every launch",
    remedy="on-demand, or another type",
    source="EC2 DescribeInstanceTypes: SupportedUsageClasses",
    example="`capacity: {kind: spot}` with a type that has no spot usage class.",
    scope="stack",
)
def spot_type(*, capacity_kind: str, no_spot: tuple[str, ...]) -> Hits:
    """The type must be offered as spot."""
    if capacity_kind == "spot" and no_spot:
        yield Hit(f"EC2 doesn't offer {', '.join(no_spot)} as spot instances")


@rule(
    Severity.WARNING,
    _CAPACITY,
    consequence="If capacity runs out half-way, the nodes that did start are paid for, idle",
    remedy="capacity.kind: reserve (all or nothing), or a Capacity Block",
    source="EC2 user guide: cluster placement groups advise one launch request for all instances",
    example="8 x p5.48xlarge on demand, one launch each.",
    scope="stack",
)
def capacity_not_reserved(
    *, capacity_kind: str, multi_node_groups: tuple[str, ...], gpu_stack: bool
) -> Hits:
    """Groups of several GPU nodes should have their capacity before the first launch."""
    if capacity_kind == "on-demand" and gpu_stack and multi_node_groups:
        yield Hit(f"nodes of {', '.join(multi_node_groups)} are launched on demand, one by one")


@rule(
    Severity.ERROR,
    "groups",
    consequence="EC2 refuses every launch into the placement group",
    remedy="another type for these groups",
    source="EC2 DescribeInstanceTypes: PlacementGroupInfo",
    example="A burstable t3 type in a cluster placement group.",
    scope="stack",
)
def placement_group_type(*, placement_group: bool, no_cluster_placement: tuple[str, ...]) -> Hits:
    """Not every type may be in a cluster placement group."""
    if placement_group and no_cluster_placement:
        yield Hit(f"{', '.join(no_cluster_placement)} can't be in a cluster placement group")


@rule(
    Severity.ERROR,
    "network.zone",
    consequence="EFA and KV never cross zones, so one part would have no zone to start in",
    remedy="types that one zone of the region offers together, or another region",
    source="EC2 DescribeInstanceTypeOfferings (2026-11); EC2 user guide: EFA stays in one zone",
    example="p5e.48xlarge (usw2-az3) with p6-b300.48xlarge (usw2-az1, az2) in us-west-2.",
    scope="stack",
)
def no_common_zone(*, zones: Mapping[str, frozenset[str]], region: str | None) -> Hits:
    """All groups of a stack share one zone."""
    if len(zones) < 2 or frozenset.intersection(*zones.values()):
        return
    listed = "; ".join(f"{name}: {', '.join(sorted(found))}" for name, found in zones.items())
    yield Hit(f"no zone of {region} offers all types ({listed})")


@rule(
    Severity.WARNING,
    "groups",
    consequence="EC2 refuses the launch unless the type has come there since",
    remedy="another region or type; `moe check` with an account asks EC2 itself",
    source="EC2 DescribeInstanceTypeOfferings (2026-11)",
    example="p6-b300.48xlarge in eu-west-2.",
    scope="stack",
)
def type_not_in_region(*, zones: Mapping[str, frozenset[str]], region: str | None) -> Hits:
    """The region must offer the type."""
    for name, found in sorted(zones.items()):
        if not found:
            yield Hit(f"no zone of {region} was known to offer {name}")


@rule(
    Severity.INFO,
    "groups",
    consequence="EC2 answers VcpuLimitExceeded above the quota, after the first nodes have started",
    remedy="look at the quota and ask for more days ahead, in the region of the stack",
    source="Service Quotas: ec2 L-417A185B, L-DB2E81BA, L-7212CCBC, L-3819A6DF",
    example="2 x p5.48xlarge need 384 vCPUs of `Running On-Demand P instances` (L-417A185B).",
    scope="stack",
)
def quotas_needed(*, quotas: tuple[tuple[str, str, str, int], ...]) -> Hits:
    """Which quota the stack counts against, and how much of it."""
    for name, code, what, needed in quotas:
        yield Hit(f"the stack needs {needed} {what} of the quota `{name}` ({code})")


@rule(
    Severity.WARNING,
    "groups",
    consequence="EC2 answers NetworkInterfaceLimitExceeded above the quota",
    remedy="ask for more of `Network interfaces per Region` (vpc L-DF5E4CA3)",
    source="Service Quotas: vpc L-DF5E4CA3, default 5,000",
    example="160 x p5.48xlarge have 33 interfaces each: 5280.",
    scope="stack",
)
def network_interfaces_quota(*, interfaces_total: int) -> Hits:
    """A region has 5,000 network interfaces unless more were granted."""
    if interfaces_total > _INTERFACES_PER_REGION:
        yield Hit(f"the stack has {interfaces_total} network interfaces; the default quota is 5000")


@rule(
    Severity.ERROR,
    "",
    consequence="EC2 refuses the launch",
    remedy="a shorter stack or group name",
    source="EC2 user guide: user data is limited to 16 KB before base64",
    example="User data of 20 kB.",
    scope="stack",
)
def user_data_too_large(*, longest_user_data_bytes: int) -> Hits:
    """User data has at most 16 KB."""
    if longest_user_data_bytes > _USER_DATA_BYTES:
        yield Hit(f"a node's user data has {longest_user_data_bytes} bytes of {_USER_DATA_BYTES}")


@rule(
    Severity.INFO,
    "groups",
    consequence="The stack's cost is not known in full",
    remedy="look the price up before `up`",
    source="infra/catalog/prices.toml",
    example="p5e.48xlarge, which has no on-demand price listed.",
    scope="stack",
)
def price_unknown(*, unpriced: tuple[str, ...]) -> Hits:
    """A type without a price in the catalog."""
    if unpriced:
        yield Hit(f"no price is known for {', '.join(unpriced)}")


@rule(
    Severity.WARNING,
    "model.source",
    consequence="Inside a cluster placement group internet traffic is limited to 5 Gbit/s; all"
    " nodes wait, and are billed, while the first one copies the model to S3",
    remedy="gateway.enabled: true, so that a node without GPUs copies it at its own bandwidth; or"
    " copy the model to S3 in the region beforehand",
    source="EC2 user guide: placement groups (5 Gbit/s to the internet)",
    example="A 640 GiB model from Hugging Face: at least 18 minutes.",
    scope="stack",
)
def hugging_face_in_placement_group(
    *,
    model_source: str,
    placement_group: bool,
    weights_gib: float,
    router_version: str | None,
) -> Hits:
    """Large models should come from S3, or over a gateway, which is in no placement group."""
    if router_version is not None:
        return
    if model_source == "hf" and placement_group and weights_gib > _HUGGING_FACE_GIB:
        minutes = weights_gib * 8 * 1.074 / _LIMIT_GBPS / 60
        yield Hit(f"{weights_gib:.0f} GiB come from Hugging Face: {minutes:.0f} minutes at best")


RULES = (
    capacity_block_placement_group,
    capacity_without_id,
    capacity_id_unused,
    capacity_block_type,
    capacity_block_size,
    capacity_block_ends,
    spot_multi_node,
    spot_type,
    capacity_not_reserved,
    placement_group_type,
    no_common_zone,
    type_not_in_region,
    quotas_needed,
    network_interfaces_quota,
    user_data_too_large,
    price_unknown,
    hugging_face_in_placement_group,
)
