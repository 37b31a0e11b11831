"""`moe check`: what would go wrong with a stack, before anything is bought."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from infra import checks
from infra.checks import Finding, Severity
from infra.cli import plan
from infra.faults import CODES, NAMESPACE, SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
_NAMES = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_FAILED, _UNREADABLE = 1, 2


def run(stack: str, file: Path | None, model_config: Path | None, *, as_json: bool) -> int:
    """Print the findings of a stack, or of a file; the exit status.

    Returns:
        1 if there is an ERROR, 2 if the settings can't be read, else 0.
    """
    try:
        planned = plan.load(stack, file, model_config)
    except SettingsError as error:
        findings = tuple(
            Finding(fault.code, Severity.ERROR, *_split(fault), CODES[fault.code][1])
            for fault in error.faults
        )
        _print(stack, findings, as_json=as_json)
        return _UNREADABLE
    findings = checks.run(planned.plan)
    _print(stack, findings, as_json=as_json)
    return _FAILED if any(f.severity is Severity.ERROR for f in findings) else 0


def show(findings: Sequence[Finding], console: Console) -> None:
    """The findings for a person: by the part of the settings that they are about, worst first."""
    places = list(dict.fromkeys(_part(f) for f in findings))
    for place, found in groupby(sorted(findings, key=lambda f: places.index(_part(f))), _part):
        console.print(Text(place, style="bold"))
        for finding in found:
            head = Text(f"  {finding.severity:<8}", style=_STYLES[finding.severity])
            head.append(finding.code, style="bold").append(f"  {finding.where}", style="dim")
            console.print(head, soft_wrap=True)
            body = Text(finding.message).append(f"\n→ {finding.remedy}")
            console.print(Padding(body, (0, 0, 0, 10)))


def _print(stack: str, findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
        return
    console = Console(highlight=False)
    show(findings, console)
    counts = Counter(finding.severity for finding in findings)
    told = ", ".join(
        f"{n} {_NAMES[severity]}{'s' if n > 1 else ''}"
        for severity in reversed(Severity)
        if (n := counts[severity])
    )
    console.print(f"{stack}: {told or 'nothing found'}")


def _part(finding: Finding) -> str:
    """The group that a finding is about, or the stack."""
    key = finding.where.removeprefix(f"{NAMESPACE}:")
    return ".".join(key.split(".")[:2]) if key.startswith("groups.") else "stack"


def _split(fault: str) -> tuple[str, str]:
    """The key that a fault names, and the rest of its sentence."""
    prefix = f"{NAMESPACE}:"
    if not fault.startswith(prefix):
        where, _, rest = fault.partition(": ")
        return where, rest or fault
    where, _, rest = fault.removeprefix(prefix).partition(": ")
    return f"{prefix}{where}", rest
