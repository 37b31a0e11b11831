"""`moe preview`: what an update would do to the nodes and to whoever asks them something."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from infra import preview_words, sources, wait
from infra.cli.errors import UsageError
from infra.cli.stack_session import session as session_of
from infra.names import bucket_name
from infra.preview import Preview, build

if TYPE_CHECKING:
    from collections.abc import Mapping

PULUMI = "pulumi"


def run(stack: str, *, as_json: bool) -> None:
    """Run Pulumi's preview and print it in words.

    Raises:
        UsageError: Pulumi refuses, with what it said; or there is no Pulumi.
    """
    document = pulumi_preview(stack)
    shown = build(document, _record(stack))
    if as_json:
        print(json.dumps(_plain(shown), indent=1, sort_keys=True))
        return
    print(f"If {stack} is updated:")
    for line in preview_words.lines(shown):
        print(f"- {line}")


def pulumi_preview(stack: str) -> Mapping[str, Any]:
    """What `pulumi preview --json` says, with what the account really has.

    Raises:
        UsageError: see `run`.
    """
    program = shutil.which(PULUMI)
    if program is None:
        raise UsageError(
            'There is no pulumi on the PATH. In the rehearsal: eval "$(make -s env)" first.'
        )
    path = sources.stack_file(stack)
    with tempfile.TemporaryDirectory() as folder:
        # Pulumi writes a salt into the file that it is given; a preview must change nothing.
        copy = Path(folder) / path.name
        if path.exists():
            shutil.copyfile(path, copy)
        command = [program, "preview", "--json", "--refresh", "--non-interactive"]
        done = subprocess.run(
            [*command, "--stack", stack, "--config-file", str(copy)],
            cwd=sources.PROJECT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        document = json.loads(done.stdout)
    except ValueError:
        document = {}
    if done.returncode:
        raise UsageError(
            f"pulumi preview of {stack} failed:\n{_errors(document) or done.stderr.strip()}"
        )
    return document


def _errors(document: Mapping[str, Any]) -> str:
    found = [d for d in document.get("diagnostics", ()) if d.get("severity") == "error"]
    return "\n".join(dict.fromkeys(str(d.get("message", "")).strip() for d in found))


def _record(stack: str) -> Mapping[str, Any] | None:
    """The last record; None where there is none, or, said so, where it can't be read."""
    session = session_of(stack)
    try:
        account = session.client("sts").get_caller_identity()["Account"]
        answer = session.client("s3").get_object(
            Bucket=bucket_name(stack, account), Key=wait.RECORD_KEY
        )
        return json.loads(answer["Body"].read())
    except (BotoCoreError, ClientError, ValueError) as error:
        code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else ""
        if code not in ("NoSuchKey", "NoSuchBucket"):
            print(f"The record of the last update can't be read: {error}", file=sys.stderr)
        return None


def _plain(shown: Preview) -> dict[str, Any]:
    plain = dataclasses.asdict(shown)
    for group, change in zip(plain["groups"], shown.groups, strict=True):
        group["silent_seconds"] = change.silent_seconds
    return {**plain, "words": list(preview_words.lines(shown))}
