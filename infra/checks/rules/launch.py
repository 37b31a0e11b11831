"""The commands: what vllm serve of the release refuses, ignores or takes for something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.checks.finding import Severity
from infra.checks.rule import Hit, Hits, rule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.checks.facts import Command

_LARGE_GIB = 150.0
"""About where DeepGEMM's warm-up starts to outlast vLLM's ten minutes."""
_ARG_UTILS = "vllm/engine/arg_utils.py@0.33.0"


def _value(argv: tuple[str, ...], flag: str) -> str | None:
    for index, word in enumerate(argv):
        if word == flag and index + 1 < len(argv):
            return argv[index + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


@rule(
    Severity.ERROR,
    "extra_args",
    consequence="vllm serve stops at once with an argparse error (exit status 2)",
    remedy="leave the flag out, or take a release that has it",
    source="vllm/engine/arg_utils.py and entrypoints of 24 releases",
    example="`extra_args: [--moe-backend, triton]` with vLLM 0.16.0.",
)
def flag_not_in_release(
    *, commands: tuple[Command, ...], flags: frozenset[str], version: str
) -> Hits:
    """Each release knows its own flags."""
    seen: set[str] = set()
    for _, _, _, argv in commands:
        seen.update(word.split("=", 1)[0] for word in argv if word.startswith("--"))
    for word in sorted(seen):
        name = "--" + word[2:].replace("_", "-").split(".", 1)[0]
        if name not in flags:
            yield Hit(f"vLLM {version} has no flag {word}")


@rule(
    Severity.ERROR,
    "extra_args",
    consequence="vllm serve stops at once with an argparse error (exit status 2)",
    remedy="one of the release's choices",
    source="vllm/engine/arg_utils.py and entrypoints of 24 releases",
    example="`extra_args: [--load-format, fast]`.",
)
def flag_value_not_allowed(
    *, commands: tuple[Command, ...], flag_choices: Mapping[str, tuple[str, ...]], version: str
) -> Hits:
    """Flags with choices take those alone."""
    argv = commands[0][3] if commands else ()
    for flag, choices in sorted(flag_choices.items()):
        value = _value(argv, flag)
        if value is not None and value not in choices:
            yield Hit(f"{flag} {value} with vLLM {version}", remedy=f"one of {', '.join(choices)}")


@rule(
    Severity.WARNING,
    "env",
    consequence="It is ignored in silence, so what it was to do isn't done",
    remedy="leave it out, or use what replaced it (vLLM's release notes)",
    source="vllm/envs.py of 24 releases",
    example="`env: {VLLM_NIXL_ABORT_REQUEST_TIMEOUT: '300'}` on 0.22: kv_lease_duration now.",
)
def env_not_in_release(
    *, env_given: Mapping[str, str], known_env: frozenset[str], version: str
) -> Hits:
    """Each release reads its own VLLM_ variables."""
    for name in sorted(env_given):
        if name.startswith("VLLM_") and name not in known_env and name != "VLLM_ALL2ALL_BACKEND":
            yield Hit(f"vLLM {version} doesn't read {name}", where=f"env.{name}")


@rule(
    Severity.WARNING,
    "env.VLLM_ALL2ALL_BACKEND",
    consequence="From 0.16 vLLM ignores the variable in silence, before it warns; the plan's"
    " all2all_backend is what runs",
    remedy="all2all_backend, which comes out as the flag or the variable as the release wants it",
    source="vllm/envs.py@0.11.0 to @0.16.0",
    example="`env: {VLLM_ALL2ALL_BACKEND: deepep_low_latency}`.",
)
def all2all_env_given(*, env_given: Mapping[str, str]) -> Hits:
    """The all2all backend is a setting, not a variable."""
    if "VLLM_ALL2ALL_BACKEND" in env_given:
        yield Hit("VLLM_ALL2ALL_BACKEND is set by hand")


@rule(
    Severity.ERROR,
    "extra_args",
    consequence="A node would take other ranks than its own, or hybrid load balancing by mistake",
    remedy="leave the data-parallel flags to the plan",
    source=f"{_ARG_UTILS} L2489-2491: a start rank without --headless means hybrid",
    example="A second node whose --data-parallel-start-rank isn't its first rank.",
    suppressible=False,
)
def start_rank(*, commands: tuple[Command, ...], load_balancing: str) -> Hits:
    """Each further node starts at its own first rank, headless unless load balancing is hybrid."""
    if load_balancing == "external":
        return
    for name, position, first_rank, argv in commands:
        if position != "headless":
            continue
        given = _value(argv, "--data-parallel-start-rank")
        if given is not None and given != str(first_rank):
            yield Hit(f"{name} has --data-parallel-start-rank {given} and ranks from {first_rank}")
        if load_balancing == "internal" and "--headless" not in argv:
            yield Hit(f"{name} is to be headless and its command lacks --headless")


@rule(
    Severity.ERROR,
    "load_balancing",
    consequence="vLLM refuses the combination, or starts without an endpoint where one is wanted",
    remedy="load_balancing: internal (headless nodes) or hybrid (an endpoint per node)",
    source="vllm entrypoints/cli/serve.py@0.33.0 L99-105",
    example="`extra_args: [--data-parallel-hybrid-lb]` in a group with headless nodes.",
)
def hybrid_and_headless(*, commands: tuple[Command, ...]) -> Hits:
    """A node can't be headless and a hybrid load balancer at once."""
    for name, _, _, argv in commands:
        if "--headless" in argv and "--data-parallel-hybrid-lb" in argv:
            yield Hit(f"{name} has --headless and --data-parallel-hybrid-lb")


@rule(
    Severity.ERROR,
    "api_server_count",
    consequence="vLLM stops at start: api_server_count has no meaning with --headless",
    remedy="leave --api-server-count to the plan, which gives it to primaries alone",
    source="vllm entrypoints/cli/serve.py@0.33.0 L69-77",
    example="`extra_args: [--api-server-count, '4']` in a group of two nodes.",
)
def api_servers_on_headless(*, commands: tuple[Command, ...]) -> Hits:
    """Headless nodes have no API server."""
    for name, _, _, argv in commands:
        if "--headless" in argv and _value(argv, "--api-server-count") not in (None, "0"):
            yield Hit(f"{name} is headless and has --api-server-count")


@rule(
    Severity.WARNING,
    "api_server_count",
    consequence="vLLM starts one Python process per data-parallel rank on the primary",
    remedy="api_server_count: as many as the primary has ranks, or fewer",
    source="vllm entrypoints/cli/serve.py@0.15.1 (the default became the data-parallel size)",
    example="32 ranks on vLLM 0.33.0 without api_server_count: 32 API servers.",
)
def api_servers_left_to_vllm(
    *, commands: tuple[Command, ...], series: tuple[int, int], data_parallel_size: int
) -> Hits:
    """From 0.15 the number of API servers follows the ranks unless it is given."""
    if series < (0, 15) or data_parallel_size < 16 or not commands:
        return
    if _value(commands[0][3], "--api-server-count") is None:
        yield Hit(f"{commands[0][0]} leaves --api-server-count to vLLM: {data_parallel_size}")


@rule(
    Severity.ERROR,
    "load_balancing",
    consequence="vLLM refuses: non-MoE models do not support external data parallel mode",
    remedy="replicas instead of data-parallel ranks",
    source=f"{_ARG_UTILS} L2456-2466",
    example="`load_balancing: external` for a dense model.",
)
def external_load_balancing_dense(*, load_balancing: str, moe: bool) -> Hits:
    """External load balancing is for MoE models."""
    if load_balancing == "external" and not moe:
        yield Hit("load_balancing is external and the model has no experts")


@rule(
    Severity.WARNING,
    "env.VLLM_ENGINE_READY_TIMEOUT_S",
    consequence="The API server gives up after that and exits while the engines go on: a restart"
    " loop that never gets ready",
    remedy="leave it to the plan, or 3600 or more",
    source="vllm-project/vllm#32116; awslabs dsv3-uccl-nixl@95b939c uses 14400",
    example="DeepSeek-V3 with `env: {VLLM_ENGINE_READY_TIMEOUT_S: '600'}`.",
)
def engine_ready_timeout(
    *, env: Mapping[str, str], weights_gib: float, series: tuple[int, int]
) -> Hits:
    """Large models need more than vLLM's ten minutes to start."""
    given = env.get("VLLM_ENGINE_READY_TIMEOUT_S", "600")
    short = given.isdigit() and int(given) < 3600
    if series >= (0, 14) and weights_gib > _LARGE_GIB and short:
        yield Hit(f"VLLM_ENGINE_READY_TIMEOUT_S is {given} for {weights_gib:.0f} GiB of weights")


@rule(
    Severity.WARNING,
    "env.VLLM_KEEP_ALIVE_ON_ENGINE_DEATH",
    consequence="vLLM stays up without an engine, and the node's agent sees nothing to restart",
    remedy="leave it out",
    source="vllm/envs.py@0.33.0",
    example="`env: {VLLM_KEEP_ALIVE_ON_ENGINE_DEATH: '1'}`.",
)
def engine_death_hidden(*, env: Mapping[str, str]) -> Hits:
    """A dead engine must end its process."""
    if env.get("VLLM_KEEP_ALIVE_ON_ENGINE_DEATH", "0") not in ("", "0"):
        yield Hit("VLLM_KEEP_ALIVE_ON_ENGINE_DEATH is on")


@rule(
    Severity.ERROR,
    "extra_args",
    consequence="vLLM stops at start",
    remedy="drop --enable-elastic-ep, or turn eplb on and hybrid load balancing off",
    source="vllm docs/serving/expert_parallel_deployment.md@0.33.0 (elastic EP)",
    example="`extra_args: [--enable-elastic-ep]` without an eplb section.",
)
def elastic_needs_eplb(*, extra_args: tuple[str, ...], eplb: bool, load_balancing: str) -> Hits:
    """Elastic expert parallelism needs EPLB and no hybrid load balancing."""
    if "--enable-elastic-ep" in extra_args and not eplb:
        yield Hit("--enable-elastic-ep without EPLB")
    elif "--enable-elastic-ep" in extra_args and load_balancing == "hybrid":
        yield Hit("--enable-elastic-ep with hybrid load balancing")


@rule(
    Severity.ERROR,
    "extra_args",
    consequence="vLLM stops at start",
    remedy="drop --enable-fault-tolerance: it can't be had on EFA, and the node agents restart"
    " groups themselves",
    source="vllm-project/vllm#43637, #27866",
    example="`extra_args: [--enable-fault-tolerance]` with internal load balancing.",
)
def fault_tolerance_needs(
    *, extra_args: tuple[str, ...], load_balancing: str, backend: str
) -> Hits:
    """Fault tolerance of vLLM wants external load balancing and a low-latency backend."""
    batched = backend in ("deepep_low_latency", "nixl_ep")
    asked = "--enable-fault-tolerance" in extra_args
    if asked and (load_balancing != "external" or not batched):
        yield Hit(f"--enable-fault-tolerance with {load_balancing} load balancing and {backend}")


RULES = (
    flag_not_in_release,
    flag_value_not_allowed,
    env_not_in_release,
    all2all_env_given,
    start_rank,
    hybrid_and_headless,
    api_servers_on_headless,
    api_servers_left_to_vllm,
    external_load_balancing_dense,
    engine_ready_timeout,
    engine_death_hidden,
    elastic_needs_eplb,
    fault_tolerance_needs,
)
