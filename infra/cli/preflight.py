"""`moe preflight`: what the account would refuse, asked before anything is made."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra import model, preflight, sources
from infra.cli.errors import UsageError
from infra.cli.stack_session import session_of
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
_PRINCIPAL = re.compile(r"arn:[a-z-]+:iam::\d{12}:(role|user)/[\w+=,.@/-]+")


@dataclass(frozen=True)
class Question:
    """What was asked: the command's options."""

    stack: str
    file: Path | None
    model_config: Path | None
    role: str | None
    json: bool


def run(question: Question) -> int:
    """Print what each check answered; the exit status: 1 where one fails.

    Raises:
        SettingsError: the settings can't be read; nothing is asked then.
        UsageError: `role` is no ARN of a user or role.
    """
    stack, file, role = question.stack, question.file, question.role
    if role is not None and not _PRINCIPAL.fullmatch(role):
        raise UsageError(
            f"--role {role}: wanted the ARN of a user or role, arn:aws:iam::<account>:role/<name>"
        )
    if file is None:
        source = sources.read_file(sources.stack_file(stack), sources.PROJECT)
    else:
        source = sources.read_file(file)
    settings = sources.load(source, stack)
    facts = model.facts(settings.model, source.base, question.model_config)
    plan = make_plan(stack, settings, facts, source.region)
    results = preflight.run(session_of(source), preflight.asked_of(plan, settings), deployer=role)
    if question.json:
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
