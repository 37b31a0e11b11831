"""`moe preflight`: what the account would refuse, asked before anything is made."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from typing import TYPE_CHECKING

import boto3
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra import model, preflight, sources
from infra.planning import make_plan
from infra.preflight import Result, State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_STYLES = {
    State.PASS: "green",
    State.WARN: "yellow",
    State.FAIL: "bold red",
    State.SKIPPED: "cyan",
}
_FAILED = 1


def run(stack: str, file: Path | None, model_config: Path | None, *, as_json: bool) -> int:
    """Print what each check answered; the exit status: 1 where one fails.

    Raises:
        SettingsError: the settings can't be read; nothing is asked then.
    """
    if file is None:
        source = sources.read_file(sources.stack_file(stack), sources.PROJECT)
    else:
        source = sources.read_file(file)
    settings = sources.load(source, stack)
    facts = model.facts(settings.model, source.base, model_config)
    plan = make_plan(stack, settings, facts, source.region)
    # Pulumi's provider reads AWS_REGION, boto3 only AWS_DEFAULT_REGION.
    session = boto3.Session(region_name=source.region or os.environ.get("AWS_REGION"))
    results = preflight.run(session, preflight.asked_of(plan, settings))
    if as_json:
        print(json.dumps([dataclasses.asdict(result) for result in results], indent=1))
    else:
        _show(stack, results, Console(highlight=False, markup=False, emoji=False))
    return _FAILED if any(result.state is State.FAIL for result in results) else 0


def _show(stack: str, results: Sequence[Result], console: Console) -> None:
    table = Table("state", "check", "what AWS says", box=SIMPLE_HEAD)
    for result in results:
        said = Text(result.message)
        if result.remedy:
            said.append(f"\n→ {result.where}: {result.remedy}", style="dim")
        check = result.code.removeprefix("PREFLIGHT_")
        table.add_row(Text(result.state, style=_STYLES[result.state]), check, said)
    console.print(table)
    counts = Counter(result.state for result in results)
    told = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    console.print(f"{stack}: {told}")
