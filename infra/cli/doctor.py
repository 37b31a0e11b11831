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


@dataclass(frozen=True)
class Question:
    """The options of the command line. log, metrics: files to read instead of a stack."""

    stack: str
    bucket: str | None
    region: str | None
    json: bool
    all: bool
    log: Path | None
    metrics: Path | None


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
    files = question.log or question.metrics
    evidence = _of_files(question) if files else _of_stack(question)
    found = match.diagnose(evidence, library.symptoms())
    shown = found if question.all else tuple(d for d in found if not d.consequence_of)
    if question.json:
        print(json.dumps([dataclasses.asdict(d) for d in shown], indent=1))
    else:
        show(shown, len(found) - len(shown), Console(highlight=False, markup=False, emoji=False))
    return int(bool(found))


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
        values = match.metrics(_read(question.metrics))
        found.append(match.Evidence("-", str(question.metrics), metrics=values))
    return tuple(found)


def _of_stack(question: Question) -> tuple[match.Evidence, ...]:
    from infra.cli import status  # noqa: PLC0415 - boto3, which files do not need
    from infra.cli.stack_region import session as session_of  # noqa: PLC0415 - as above
    from infra.names import bucket_name  # noqa: PLC0415 - as above

    session = session_of(question.stack, question.region)
    bucket = question.bucket or bucket_name(
        question.stack, session.client("sts").get_caller_identity()["Account"]
    )
    contents = status.read(session.client("s3"), question.stack, bucket)
    return gather.evidence(contents.assignments, contents.statuses, time.time())


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
