"""`moe plan`: what will be built, as a table, JSON, shell commands or a node's user data."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from infra import checks, model, sources
from infra.cli.errors import UsageError
from infra.names import bucket_name
from infra.plan import plan as plans
from infra.plan.topology import address_variable
from infra.planning import make_plan
from node_bootstrap.assignment import PRIMARY_INTERFACE


@dataclass(frozen=True)
class Planned:
    """A plan, what the checks found, and the region that it is for, if that is said."""

    plan: plans.Plan
    findings: tuple[checks.Finding, ...]
    region: str | None


def load(stack: str, file: Path | None, model_config: Path | None = None) -> Planned:
    """Plan a stack of this project, or a file; SettingsError has all faults.

    model_config: a config.json that takes the place of the settings' own.
    """
    if file is None:
        path, base = sources.stack_file(stack), sources.PROJECT
    else:
        path, base = file, None
    source = sources.read_file(path, base)
    settings = sources.load(source, stack)
    facts = model.facts(settings.model, source.base, model_config)
    plan = make_plan(stack, settings, facts, source.region)
    return Planned(plan, checks.run(plan), source.region)


def print_json(planned: Planned) -> None:
    """The plan as a document: the same settings give the same bytes."""
    sys.stdout.write(plans.to_json(planned.plan, planned.findings))


def print_user_data(planned: Planned, node: str) -> None:
    """The cloud-config that a node boots with; the account's id is known only to AWS."""
    from node_bootstrap import user_data  # noqa: PLC0415 - needed by this option alone

    names = [n.name for n in planned.plan.nodes]
    if node not in names:
        raise UsageError(f"--user-data {node}: no such node; the plan has {', '.join(names)}")
    bucket = bucket_name(planned.plan.stack, "0" * 12)
    region = planned.region or "us-east-1"
    sys.stdout.write(user_data.render(bucket=bucket, node=node, region=region).decode())


def print_commands(planned: Planned) -> None:
    """Each node's command for a shell; what only the deployment knows is a variable, set first."""
    plan = planned.plan
    for group in plan.groups:
        for node in group.nodes:
            print(f"# {node.name}: {node.position} of {group.name}, {node.instance_type}")
            _print_command(plan, node.argv, node.env, node.secret_env)
    if plan.router is not None:
        router = plan.router
        print(f"# {router.node}: the router, {router.instance_type}")
        _print_command(plan, router.argv, router.env, router.secret_env)


def _print_command(
    plan: plans.Plan, argv: tuple[str, ...], env: dict[str, str], secrets: dict[str, str]
) -> None:
    used = "\n".join((*argv, *env.values()))
    for node in plan.nodes:
        if node.address in used:
            print(f"{address_variable(node.name)}=  # address of {node.name}")
    if PRIMARY_INTERFACE in used:
        print("PRIMARY_INTERFACE=  # name of the interface that carries the node's address")
    for name, parameter in secrets.items():
        print(f"export {name}=  # value of the SSM parameter {parameter}")
    environment = [f"{key}={_quoted(value)}" for key, value in env.items()]
    print(" \\\n  ".join([*environment, *_lines(argv)]) + "\n")


def print_table(planned: Planned) -> None:
    """The plan as a person reads it."""
    plan, console = planned.plan, Console()
    size = plan.weights.size_gib if plan.weights else plan.model.size_bytes / 2**30
    console.print(
        f"[bold]{plan.stack}[/]: {plan.model.name} ({plan.model.architecture}, "
        f"{plan.model.experts} experts, {size:.2f} GiB) on vLLM {plan.vllm_version}"
    )
    for group in plan.groups:
        backend = group.all2all_backend
        console.print(
            f"\n[bold]{group.name}[/] ({group.role}): {len(group.nodes)} x {group.instance_type}, "
            f"TP {group.tensor_parallel_size} x DP {group.data_parallel_size} = "
            f"EP {group.expert_parallel_size}; all2all {backend.chosen} ({backend.reason}); "
            f"{_kv_cache(group)}"
        )
        console.print(f"{group.parallelism.mode}: {group.parallelism.reason}")
        table = Table("node", "position", "ranks", "interfaces", "must have", "vLLM")
        for node in group.nodes:
            versions = ", ".join(f"{k} {v}" for k, v in node.software.distributions.items())
            table.add_row(
                node.name,
                node.position,
                f"{node.first_rank}-{node.first_rank + node.ranks - 1}",
                str(len(node.network_interfaces)),
                f"{node.hardware.cpus_min} vCPU, {node.hardware.memory_gib_min} GiB",
                versions or node.software.image or "",
            )
        console.print(table)
    ports = plan.ports
    console.print(
        f"ports: API {ports.api}, agents {ports.agent}, data-parallel RPC {ports.data_parallel_rpc}"
    )
    console.print(_cost(plan))
    _print_findings(console, planned.findings)


def _cost(plan: plans.Plan) -> str:
    cost = plan.cost
    if cost.usd_per_hour is None:
        known = f"${cost.known_usd_per_hour:.2f} an hour without {', '.join(cost.unpriced)}"
        return f"cost: {known}, whose price isn't known"
    where = f"on demand in {cost.price_region}, prices of {cost.price_date}"
    return f"cost: ${cost.usd_per_hour:.2f} an hour, ${cost.usd_per_day:.0f} a day ({where})"


def _print_findings(console: Console, findings: tuple[checks.Finding, ...]) -> None:
    colors = {"ERROR": "red", "WARNING": "yellow", "INFO": "cyan"}
    for found in findings:
        color = colors[found.severity]
        console.print(f"[{color}]{found.severity}[/] [bold]{found.code}[/] {found.where}")
        console.print(f"  {found.message} {found.remedy}", markup=False)


def _kv_cache(group: plans.Group) -> str:
    if group.kv_cache_memory_bytes is not None:
        return f"KV cache {group.kv_cache_memory_bytes / 2**20:.0f} MiB per rank"
    if group.memory is None:
        return "KV cache: not planned"
    held = group.memory
    return f"KV cache {held.kv_cache_gib:.1f} GiB, {held.kv_cache_tokens} tokens per GPU"


def _quoted(text: str) -> str:
    """Quoted for a shell, so that the placeholders of addresses still expand."""
    return f'"{text}"' if "${" in text else shlex.quote(text)


def _lines(argv: tuple[str, ...]) -> list[str]:
    """The program in one line, then each flag with its value in a line of its own."""
    lines = [""]
    for word in argv:
        if word.startswith("--"):
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {_quoted(word)}".lstrip()
    return lines
