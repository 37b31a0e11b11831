"""Who reaches the endpoint, what routes between groups, and what the nodes must have."""

# ruff: noqa: PLR0913 - a rule takes each fact it depends on as a plain value

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from infra.checks.finding import Severity
from infra.checks.rule import Hit, Hits, rule

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEY = "endpoint.allowed_cidrs"
_SECURITY = "vllm docs/usage/security.md@0.33.0; vllm-project/vllm#23052"
_ROUTER = "vllm-router 0.1.17, observed with stub workers"
_SHORT_CONTEXT = 4096


@rule(
    Severity.ERROR,
    _KEY,
    consequence="Anybody on the internet could use, and pay nothing for, your GPUs",
    remedy="allowed_cidrs: the networks of your clients",
    source=_SECURITY,
    example="`endpoint: {exposure: public}` without allowed_cidrs.",
    scope="stack",
    suppressible=False,
)
def public_without_cidrs(*, exposure: str, allowed_cidrs: tuple[str, ...]) -> Hits:
    """A public endpoint must say who may reach it."""
    if exposure == "public" and not allowed_cidrs:
        yield Hit("the endpoint is public and no network is named")


@rule(
    Severity.ERROR,
    _KEY,
    consequence="Anybody on the internet could reach the endpoint, with one key in between",
    remedy="the networks of your clients; 0.0.0.0/0 is everybody, and halves of it are too;"
    " endpoint.open_to_the_world: true where everybody is meant",
    source=_SECURITY,
    example="`allowed_cidrs: [0.0.0.0/0]`, or `[0.0.0.0/1, 128.0.0.0/1]`.",
    scope="stack",
    suppressible=False,
)
def open_to_the_world(*, allowed_cidrs: tuple[str, ...], open_to_the_world: bool) -> Hits:
    """The endpoint isn't for everybody, unless that is said."""
    if open_to_the_world:
        return
    wide = [c for c in allowed_cidrs if ipaddress.ip_network(c, strict=False).prefixlen < 8]
    if wide:
        yield Hit(f"the endpoint is open to {', '.join(wide)}")


@rule(
    Severity.WARNING,
    "endpoint.tls",
    consequence="Keys, prompts and answers cross the internet in the clear",
    remedy="endpoint.tls with a name of yours, or exposure: private",
    source=_SECURITY,
    example="`endpoint: {exposure: public, allowed_cidrs: [203.0.113.0/24]}` without tls.",
    scope="stack",
)
def public_without_tls(*, exposure: str, tls: bool) -> Hits:
    """A public endpoint wants TLS."""
    if exposure == "public" and not tls:
        yield Hit("the endpoint is public and has no TLS")


@rule(
    Severity.ERROR,
    "groups",
    consequence="The router never gets ready: it waits for at least one worker of each role",
    remedy="one group of role prefill and one of role decode, or role serve",
    source=_ROUTER,
    example="A stack whose groups are all prefill.",
    scope="stack",
)
def one_sided_disaggregation(*, types: tuple[tuple[str, str, str, int], ...]) -> Hits:
    """Prefill needs decode, and decode prefill."""
    roles = {role for _, role, _, _ in types}
    if ("prefill" in roles) != ("decode" in roles):
        have, lack = ("prefill", "decode") if "prefill" in roles else ("decode", "prefill")
        yield Hit(f"the stack has {have} groups and no {lack} group")


@rule(
    Severity.WARNING,
    "groups",
    consequence="The router sends requests to prefill and decode only: the serve groups idle",
    remedy="stacks of their own for the two ways of serving",
    source=_ROUTER,
    example="Groups of the roles serve, prefill and decode in one stack.",
    scope="stack",
)
def serve_beside_disaggregation(*, types: tuple[tuple[str, str, str, int], ...]) -> Hits:
    """One stack serves one way."""
    roles = {role for _, role, _, _ in types}
    if "serve" in roles and {"prefill", "decode"} & roles:
        yield Hit("the stack has serve groups beside prefill or decode groups")


@rule(
    Severity.INFO,
    "groups",
    consequence="Sending KV costs more than prefill itself when both prompts and answers are short",
    remedy="role serve, unless inputs are long or tokens must come steadily",
    source="llm-d guides/pd-disaggregation@027a053; awslabs dsv3-uccl-nixl@95b939c",
    example="Prefill and decode groups with `max_model_len: 2048`.",
    scope="stack",
)
def disaggregation_of_short_contexts(*, transfers_kv: bool, shortest_context: int | None) -> Hits:
    """Prefill/decode pays for long inputs and steady tokens."""
    if transfers_kv and shortest_context and shortest_context <= _SHORT_CONTEXT:
        yield Hit(f"prefill and decode are apart at a context of {shortest_context} tokens")


@rule(
    Severity.ERROR,
    "gateway",
    consequence="--kv-connector nixl is an unknown option: the router stops at start",
    remedy="vllm-router 0.1.14 or later; 0.1.17 is the tested one",
    source="vllm-router 0.1.12 and 0.1.14, read",
    example="vllm-router 0.1.12 with prefill and decode groups.",
    scope="stack",
)
def router_too_old(*, router_version: str | None) -> Hits:
    """vllm-router knows NIXL from 0.1.14."""
    if router_version and _numbers(router_version) < (0, 1, 14):
        yield Hit(f"vllm-router {router_version} has no --kv-connector nixl")


@rule(
    Severity.WARNING,
    "gateway",
    consequence="A dead decode group stays in rotation for three checks: its requests get HTTP 500",
    remedy="--health-check-interval-secs 5",
    source=_ROUTER,
    example="The router's default of 60 seconds.",
    scope="stack",
)
def router_health_interval(*, router_argv: tuple[str, ...]) -> Hits:
    """The router should look at its workers every 10 seconds or more often."""
    if not router_argv:
        return
    flag = "--health-check-interval-secs"
    given = router_argv[router_argv.index(flag) + 1] if flag in router_argv else "60"
    if not given.isdigit() or int(given) > 10:
        yield Hit(f"the router checks its workers every {given} seconds")


@rule(
    Severity.INFO,
    "ami",
    consequence="Without it the container runtime refuses the image, or CUDA finds no device",
    remedy="the AMI that the plan picks has it; check an AMI of your own with nvidia-smi",
    source="vllm docker/Dockerfile@0.20.2 (CUDA 13); NVIDIA CUDA compatibility",
    example="vLLM 0.33.0 (CUDA 13) needs NVIDIA driver 580 or later.",
)
def driver_floor(
    *, components: Mapping[str, str], gpus_per_node: int, series: tuple[int, int], version: str
) -> Hits:
    """CUDA 13 builds of vLLM (0.20 and later) need NVIDIA driver 580."""
    if gpus_per_node and series >= (0, 20):
        planned = next((v for n, v in components.items() if "driver" in n.lower()), ">= 580")
        yield Hit(f"vLLM {version} is built for CUDA 13 and needs NVIDIA driver {planned}")


@rule(
    Severity.ERROR,
    "vllm.image",
    consequence="The image has no EFA libraries: NCCL and NIXL fall back to TCP, or don't start",
    remedy="the -efa image of vLLM 0.33, or an image with the EFA userspace",
    source="vllm-project/vllm#55635, #55783; docker/Dockerfile.efa@0.33.0",
    example="`vllm: {runtime: container, image: 'vllm/vllm-openai:v0.33.0'}` on two p5en.48xlarge.",
)
def image_without_efa(
    *, runtime: str, image: str | None, nodes: int, transport: str, kv_connector: str | None,
    max_efa: int,
) -> Hits:  # fmt: skip
    """Plain images of vLLM have no EFA userspace."""
    uses_efa = max_efa > 0 and (transport == "efa" or kv_connector is not None)
    plain = image is not None and "vllm/vllm-openai" in image and "efa" not in image
    if runtime == "container" and uses_efa and plain:
        yield Hit(f"{image} over EFA ({nodes} nodes a group)")


@rule(
    Severity.INFO,
    "vllm.image",
    consequence="What it names may change: a node that starts later may run something else",
    remedy="name it by its digest, NAME@sha256:…, as `docker buildx imagetools inspect` prints it",
    source="OCI distribution specification 1.1: pulling manifests by tag and by digest",
    example="`vllm: {image: 'vllm/vllm-openai:v0.33.0-efa'}`, or the one that the plan picks.",
)
def image_by_tag(*, runtime: str, image: str | None) -> Hits:
    """An image that is named by a tag is what its registry says it is at the moment of the pull."""
    if runtime == "container" and image and "@sha256:" not in image:
        yield Hit(f"{image} is named by a tag")


@rule(
    Severity.ERROR,
    "network.nat",
    consequence="The nodes have no way there: they never get to vLLM, and are paid for",
    remedy="nat: auto or true; or images from Amazon ECR, weights from S3, no gateway, and for"
    " virtual environments without GPUs an image (`ami`) that has them",
    source="Amazon VPC user guide: NAT gateways; nodes have no public address",
    example="`network: {nat: false}` with vLLM's own image, which is on Docker Hub.",
    scope="stack",
)
def no_way_to_the_internet(*, way_out: str, from_internet: tuple[str, ...]) -> Hits:
    """What is on the internet needs a NAT gateway."""
    if way_out == "none" and from_internet:
        yield Hit(f"nodes need the internet for {', '.join(from_internet)}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


RULES = (
    public_without_cidrs,
    open_to_the_world,
    public_without_tls,
    one_sided_disaggregation,
    serve_beside_disaggregation,
    disaggregation_of_short_contexts,
    router_too_old,
    router_health_interval,
    driver_floor,
    image_without_efa,
    image_by_tag,
    no_way_to_the_internet,
)
