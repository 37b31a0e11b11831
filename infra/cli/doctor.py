"""`moe doctor`: what is wrong with a stack, first cause first; and the library behind it."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from infra.cli.errors import UsageError
from infra.doctor import gather, library, match
from infra.render import transfer_words
from infra.report import Contents
from node_bootstrap.agent.signs import largest
from node_bootstrap.status import TransferReport


@dataclass(frozen=True)
class Question:
    """The options of the command line. log, metrics: files to read instead of a stack.

    transfer: only what the nodes measured between them.
    """

    stack: str
    bucket: str | None
    region: str | None
    json: bool
    all: bool
    log: Path | None
    metrics: Path | None
    transfer: bool = False


def list_symptoms(*, as_json: bool) -> None:
    """Print the library."""
    if as_json:
        print(json.dumps([dataclasses.asdict(s) for s in library.symptoms()], indent=1))
        return
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for symptom in library.symptoms():
        affected = f" (vLLM {symptom.affected})" if symptom.affected else ""
        console.print(f"{symptom.id:22} {symptom.stage:9} {symptom.symptom}{affected}")


def run(question: Question) -> int:
    """Print the diagnoses; the exit status: 1 where there is a cause, else 0.

    Raises:
        UsageError: there is no such bucket, or a file can't be read.
        botocore.exceptions.ClientError: AWS refused.
    """
    if question.transfer:
        return _transfer(question)
    files = question.log or question.metrics
    evidence = _of_files(question) if files else _of_stack(question)
    found = match.diagnose(evidence, library.symptoms())
    shown = found if question.all else tuple(d for d in found if not d.consequence_of)
    if question.json:
        print(json.dumps([dataclasses.asdict(d) for d in shown], indent=1))
    else:
        console = Console(highlight=False, markup=False, emoji=False)
        show(shown, len(found) - len(shown), console)
        if not files:
            _note_unreachable(question, console)
    return int(bool(found))


def _note_unreachable(question: Question, console: Console) -> None:
    """Nodes that can't be looked into are no symptom of what they serve, and worth knowing."""
    from infra.cli.stack_session import session as session_of  # noqa: PLC0415 - boto3, as below
    from infra.doctor import session_manager  # noqa: PLC0415 - as above

    told = session_manager.note(session_of(question.stack, question.region), question.stack)
    if told:
        console.print(told)


def _transfer(question: Question) -> int:
    """Print what was measured; 1 where something is not as planned or not measured yet."""
    contents = _contents(question)
    figures: dict[str, TransferReport | None] = {}
    for name, told in sorted(contents.assignments.items()):
        status = contents.statuses.get(name)
        if told.position == "primary" and told.transfer is not None:
            figures[told.group] = status.group.transfer if status and status.group else None
        for pair in status.gateway.pairs if status and status.gateway else ():
            if pair.transfer is not None:
                figures[transfer_words.pair_name(pair)] = pair.transfer
    wrong = any(measured is None or measured.faults for measured in figures.values())
    if question.json:
        print(json.dumps({n: m and dataclasses.asdict(m) for n, m in figures.items()}, indent=1))
        return int(wrong)
    for group, measured in figures.items():
        print(f"{group}: {transfer_words.figures(measured) if measured else 'not measured yet'}")
        for fault in measured.faults if measured else ():
            print(f"  {fault}")
    if not figures:
        print("No group of this stack measures a transfer (checks.transfer; groups of one node).")
    return int(wrong)


def show(found: tuple[match.Diagnosis, ...], hidden: int, console: Console) -> None:
    """The diagnoses as a person reads them."""
    if not found:
        console.print("Nothing that is known to be a symptom.")
    for number, diagnosis in enumerate(found, 1):
        symptom, first = diagnosis.symptom, diagnosis.sightings[0]
        console.print(f"{number}. {symptom.symptom} [{symptom.id}]", style="bold")
        nodes = sorted({s.node for s in diagnosis.sightings})
        console.print(f"   seen    {', '.join(nodes)}: {first.where}: {first.shown}")
        for name in ("cause", "fix", "verify", "source"):
            console.print(f"   {name:7} {getattr(symptom, name)}")
        if diagnosis.consequence_of:
            console.print(f"   follows from {', '.join(diagnosis.consequence_of)}")
    if hidden:
        console.print(f"{hidden} more follow from these; --all shows them.")


def _of_files(question: Question) -> tuple[match.Evidence, ...]:
    found = []
    if question.log:
        found.append(match.Evidence("-", str(question.log), _read(question.log)))
    if question.metrics:
        values = largest(_read(question.metrics))
        found.append(match.Evidence("-", str(question.metrics), metrics=values))
    return tuple(found)


def _of_stack(question: Question) -> tuple[match.Evidence, ...]:
    contents = _contents(question)
    return gather.evidence(contents.assignments, contents.statuses, time.time())


def _contents(question: Question) -> Contents:
    from infra.cli import status  # noqa: PLC0415 - boto3, which files do not need
    from infra.cli.stack_session import session as session_of  # noqa: PLC0415 - as above
    from infra.names import bucket_name  # noqa: PLC0415 - as above

    session = session_of(question.stack, question.region)
    bucket = question.bucket or bucket_name(
        question.stack, session.client("sts").get_caller_identity()["Account"]
    )
    return status.read(session.client("s3"), question.stack, bucket)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
