"""systemd, as the gateway's agent uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from node_bootstrap import runner

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LOG_LINES = 20


@dataclass(frozen=True)
class Look:
    """A unit: systemd's ActiveState, and how often systemd has started it again by itself."""

    state: str = "inactive"
    restarts: int = 0


class Units(Protocol):
    """What starts, stops and tells of units."""

    def looks(self, names: Sequence[str]) -> dict[str, Look]:
        """How each is."""
        ...

    def states(self, names: Sequence[str]) -> dict[str, str]:
        """ActiveState of each."""
        ...

    def log(self, name: str) -> str:
        """The end of what a unit wrote."""
        ...

    def act(self, verb: str, *names: str, wait: bool = True) -> None:
        """Run `systemctl VERB NAMES`."""
        ...


class Systemd:
    """The node's own."""

    def looks(self, names: Sequence[str]) -> dict[str, Look]:
        """States are active, activating, deactivating, inactive or failed."""
        command = ["systemctl", "show", "--property=Id,ActiveState,NRestarts", *names]
        return parse(runner.run(command, timeout_seconds=10).splitlines())

    def states(self, names: Sequence[str]) -> dict[str, str]:
        """See Units."""
        return {unit: look.state for unit, look in self.looks(names).items()}

    def log(self, name: str) -> str:
        """See Units."""
        command = ["journalctl", "--no-pager", "-q", "-o", "cat", "-n", str(LOG_LINES), "-u", name]
        try:
            return runner.run(command, timeout_seconds=10)
        except runner.CommandError as error:
            return str(error)

    def act(self, verb: str, *names: str, wait: bool = True) -> None:
        """CommandError when it can't be done."""
        options = () if wait else ("--no-block",)
        runner.run(["systemctl", *options, verb, *names], timeout_seconds=60)


def parse(lines: Iterable[str]) -> dict[str, Look]:
    """From `systemctl show --property=Id,ActiveState,NRestarts`, one block a unit."""
    found: dict[str, Look] = {}
    block: dict[str, str] = {}
    for line in [*lines, ""]:
        key, _, value = line.partition("=")
        if line:
            block[key] = value
        elif "Id" in block:
            # A socket has no NRestarts.
            restarts = int(block.get("NRestarts") or 0)
            found[block["Id"]] = Look(block.get("ActiveState", ""), restarts)
            block = {}
    return found
