"""The one way a node runs a command: no shell, a time limit, an error with the whole story."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TAIL_CHARACTERS = 2000


class CommandError(Exception):
    """A command did not end well: which, how, why, and the end of what it said.

    exit_code: None when the command never ran or was killed at its time limit.
    """

    def __init__(
        self,
        command: tuple[str, ...],
        exit_code: int | None,
        reason: str,
        stdout: str = "",
        stderr: str = "",
    ) -> None:
        super().__init__(command, exit_code, reason, stdout, stderr)
        self.command = command
        self.exit_code = exit_code
        self.reason = reason
        self.stdout = stdout
        self.stderr = stderr

    def __str__(self) -> str:
        lines = [
            f"Command: {shlex.join(self.command)}",
            f"Exit code: {'-' if self.exit_code is None else self.exit_code}",
            f"Reason: {self.reason}",
        ]
        for name, text in (("Stdout", self.stdout), ("Stderr", self.stderr)):
            if text.strip():
                tail = text.strip()[-TAIL_CHARACTERS:].replace("\n", "\n    ")
                lines.append(f"{name}:\n    {tail}")
        return "\n".join(lines)


def run(
    command: Sequence[str],
    *,
    timeout_seconds: float,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command to its end and return what it wrote to stdout.

    Args:
        command: program and arguments; nothing in it may be secret (it is shown in errors).
        timeout_seconds: then the command is killed.
        env: the whole environment; None: this process's.

    Raises:
        CommandError: it is missing, ended with another code than 0, or took too long.
    """
    argv = tuple(command)
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="replace",
            env=env,
            stdin=subprocess.DEVNULL,
            timeout=timeout_seconds,
        )
    except OSError as error:
        raise CommandError(argv, None, error.strerror or str(error)) from error
    except subprocess.TimeoutExpired as error:
        reason = f"not done after {timeout_seconds:.0f} s, killed"
        raise CommandError(argv, None, reason, _text(error.stdout), _text(error.stderr)) from error
    if done.returncode < 0:
        reason = f"ended by signal {-done.returncode}"
        raise CommandError(argv, done.returncode, reason, done.stdout, done.stderr)
    if done.returncode:
        reason = "ended with an error"
        raise CommandError(argv, done.returncode, reason, done.stdout, done.stderr)
    return done.stdout


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
