"""The Pulumi CLI as the driver runs it: in the foreground, interrupted cleanly, or asked."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehearsal.driver.errors import DriverError
from rehearsal.driver.stackfile import PROJECT
from rehearsal.paths import Home


@dataclass(frozen=True)
class Lock:
    """A lock file of the file backend: who held the stack."""

    pid: int
    hostname: str

    @property
    def held(self) -> bool:
        """Whether its process may still be at work; of another host nobody here can know."""
        if self.hostname != socket.gethostname():
            return True
        try:
            program = Path(f"/proc/{self.pid}/comm").read_text().strip()
        except OSError:
            return False
        return program.startswith("pulumi")


@dataclass(frozen=True)
class Pulumi:
    """One stack of this checkout, through the CLI.

    Attributes:
        program: the CLI.
        stack: the stack's name.
        project: the checkout's folder, where Pulumi.yaml lies.
        home: the rehearsal.
        environment: the whole environment of the CLI.
    """

    program: Path
    stack: str
    project: Path
    home: Home
    environment: Mapping[str, str]

    @property
    def config_file(self) -> Path:
        """The stack file that Pulumi reads and writes (see stackfile)."""
        return self._scratch / f"Pulumi.{self.stack}.yaml"

    @property
    def _scratch(self) -> Path:
        return self.home.root.resolve() / "pulumi" / "project"

    @property
    def exists(self) -> bool:
        """Whether the backend has the stack."""
        return state_file(self.home, self.stack).exists()

    def select(self) -> None:
        """Make the stack where it is missing, and select it for commands of the person's own.

        It is made from a folder beside the rehearsal's state: `pulumi stack init` has no
        `--config-file` and would write the salt to the checkout's stack file.

        Raises:
            DriverError: Pulumi refused.
        """
        if not self.exists:
            self._scratch.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.project / "Pulumi.yaml", self._scratch / "Pulumi.yaml")
            self.ask("stack", "init", self.stack, "--non-interactive", folder=self._scratch)
        self.ask("stack", "select", self.stack, "--non-interactive")

    def run(self, *arguments: str) -> int:
        """Run an operation on the stack with the terminal as its output; return its exit status.

        SIGINT and SIGTERM of this process reach Pulumi once, as SIGINT: it then cancels what runs
        and keeps what is done. Pulumi gets a process group of its own for that: ^C at a terminal
        goes to the whole foreground group, and a second SIGINT would end Pulumi at once.
        Its stdin is empty, so it asks nothing. TERM is dumb, so it doesn't ask the terminal for its
        background colour either: outside the foreground group it would be stopped for that, and
        a terminal that doesn't answer costs 5 s.
        """
        command = [
            *(str(self.program), *arguments),
            *("--stack", self.stack, "--config-file", str(self.config_file)),
            *(
                "--color",
                "always" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else "never",
            ),
        ]
        with _interrupts_passed_on() as pass_on:
            process = subprocess.Popen(
                command,
                cwd=self.project,
                env={**self.environment, "TERM": "dumb"},
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
            pass_on.append(process)
            return process.wait()

    def preview(self) -> int:
        """Show what `up` would change; return the exit status.

        A preview keeps nothing, yet the CLI serialises the whole state after each of its steps,
        which for 64 nodes is half of its time: it is told to leave that.
        """
        kept = {"PULUMI_EXPERIMENTAL": "true", "PULUMI_SKIP_CHECKPOINTS": "true"}
        previewing = dataclasses.replace(self, environment={**self.environment, **kept})
        return previewing.run("preview", "--refresh")

    def ask(self, *arguments: str, folder: Path | None = None) -> str:
        """Run a short command and return what it prints.

        Args:
            arguments: of the CLI.
            folder: where it runs; the checkout if not given.

        Raises:
            DriverError: it failed; with what Pulumi said.
        """
        done = subprocess.run(
            [self.program, *arguments],
            cwd=folder or self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise DriverError(
                f"`pulumi {' '.join(arguments)}` failed (exit status {done.returncode}):\n"
                f"{(done.stderr or done.stdout).strip()}"
            )
        return done.stdout

    def deployment(self) -> Mapping[str, Any]:
        """Return the stack's state: `resources`, `pending_operations`."""
        exported = json.loads(self.ask("stack", "export", "--stack", self.stack))
        return exported.get("deployment") or {}

    def locks(self) -> list[Lock]:
        """Return the locks on the stack."""
        folder = (
            self.home.pulumi_state / ".pulumi" / "locks" / "organization" / PROJECT / self.stack
        )
        return [
            Lock(pid=int(found["pid"]), hostname=str(found["hostname"]))
            for found in (json.loads(file.read_text()) for file in sorted(folder.glob("*.json")))
        ]

    def unlock(self) -> None:
        """Remove the locks on the stack.

        Raises:
            DriverError: a run that may be alive holds one, or Pulumi refused.
        """
        held = [lock for lock in self.locks() if lock.held]
        if held:
            who = ", ".join(f"process {lock.pid} on {lock.hostname}" for lock in held)
            raise DriverError(
                f"Another pulumi run works on the stack {self.stack}: {who}. Wait for its end or "
                "interrupt it. If you know that it is gone: "
                f'eval "$(make -s env)"; pulumi cancel --stack {self.stack}'
            )
        if self.locks():
            self.ask("cancel", "--yes", "--stack", self.stack)


def state_file(home: Home, stack: str) -> Path:
    """Return where the file backend keeps a stack."""
    return home.pulumi_state / ".pulumi" / "stacks" / PROJECT / f"{stack}.json"


def stacks_with_resources(home: Home) -> list[str]:
    """Return the stacks of a rehearsal that still have resources (their own entry aside)."""
    found = []
    for file in sorted(state_file(home, "*").parent.glob("*.json")):
        checkpoint = json.loads(file.read_text()).get("checkpoint") or {}
        resources = (checkpoint.get("latest") or {}).get("resources") or []
        if resources:
            found.append(file.stem)
    return found


@contextmanager
def _interrupts_passed_on() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []

    def pass_on(*_: object) -> None:
        for process in processes:
            process.send_signal(signal.SIGINT)

    numbers: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield processes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def unfinished_marker(home: Home, stack: str) -> Path:
    """Return the file that is there from the start of an operation until it has succeeded."""
    return home.root / "pulumi" / f"unfinished-{stack}"
