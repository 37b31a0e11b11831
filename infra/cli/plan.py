"""`moe plan`: what will be built, as a table, JSON, shell commands or a node's user data."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from infra import checks, model, sources
from infra.cli.errors import UsageError
from infra.names import bucket_name
from infra.plan import plan as plans
from infra.plan.topology import address_variable
from infra.planning import make_plan
from infra.render import drawing, text
from node_bootstrap.assignment import PRIMARY_INTERFACE

_PLACEHOLDER = re.compile(rf"(\$\{{[A-Z0-9_]+_ADDRESS\}}|{re.escape(PRIMARY_INTERFACE)})")
_SPECIAL = re.compile(r'[\\"$`]')
"""What a shell reads inside double quotes."""
_HEADINGS = {
    checks.Severity.ERROR: "Errors",
    checks.Severity.WARNING: "Warnings",
    checks.Severity.INFO: "Notes",
}


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
    ephemeral = planned.plan.ttl_seconds is not None
    sys.stdout.write(user_data.render(bucket, node, region, ephemeral=ephemeral).decode())


def print_commands(planned: Planned) -> None:
    """Each node's command for a shell; what only the deployment knows is a variable, set first."""
    plan = planned.plan
    for group in plan.groups:
        for node in group.nodes:
            image = f", in {node.software.image}" if node.software.image else ""
            print(f"# {node.name}: {node.position} of {group.name}, {node.instance_type}{image}")
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


def write_svg(planned: Planned, file: Path) -> None:
    """Write the drawing of the plan: the same settings give the same bytes."""
    try:
        file.write_text(drawing.svg(planned.plan), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--svg {file}: {error.strerror}") from None
    print(f"wrote {file}", file=sys.stderr)


def print_table(planned: Planned) -> None:
    """The plan as a person reads it, then the findings, the worst first."""
    from infra.cli import check  # noqa: PLC0415 - that module needs this one

    console = Console(highlight=False, markup=False, emoji=False)
    text.show(planned.plan, console)
    for severity in reversed(checks.Severity):
        found = [finding for finding in planned.findings if finding.severity is severity]
        if found:
            console.print(f"\n{_HEADINGS[severity]} ({len(found)})")
            check.show(found, console)


def _quoted(text: str) -> str:
    """Quoted for a shell, so that the placeholders of the plan, and nothing else, expand."""
    if not _PLACEHOLDER.search(text):
        return shlex.quote(text)
    parts = _PLACEHOLDER.split(text)  # literal, placeholder, literal, ...
    literals = [_SPECIAL.sub(r"\\\g<0>", part) for part in parts[::2]]
    words = [word for pair in zip(literals, [*parts[1::2], ""], strict=True) for word in pair]
    return f'"{"".join(words)}"'


def _lines(argv: tuple[str, ...]) -> list[str]:
    """The program in one line, then each flag with its value in a line of its own."""
    lines = [""]
    for word in argv:
        if word.startswith("--"):
            lines.append(_quoted(word))
        else:
            lines[-1] = f"{lines[-1]} {_quoted(word)}".lstrip()
    return lines
