"""systemd, as the gateway's agent uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from node_bootstrap import runner

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Units(Protocol):
    """What starts, stops and tells of units."""

    def states(self, names: Sequence[str]) -> dict[str, str]:
        """ActiveState of each."""
        ...

    def act(self, verb: str, *names: str, wait: bool = True) -> None:
        """Run `systemctl VERB NAMES`."""
        ...


class Systemd:
    """The node's own."""

    def states(self, names: Sequence[str]) -> dict[str, str]:
        """ActiveState of each: active, activating, deactivating, inactive or failed."""
        command = ["systemctl", "show", "--property=Id,ActiveState", *names]
        return parse_states(runner.run(command, timeout_seconds=10).splitlines())

    def act(self, verb: str, *names: str, wait: bool = True) -> None:
        """CommandError when it can't be done."""
        options = () if wait else ("--no-block",)
        runner.run(["systemctl", *options, verb, *names], timeout_seconds=60)


def parse_states(lines: Iterable[str]) -> dict[str, str]:
    """From `systemctl show --property=Id,ActiveState`: unit -> state."""
    found, name, state = {}, "", ""
    for line in [*lines, ""]:
        key, _, value = line.partition("=")
        if key == "Id":
            name = value
        elif key == "ActiveState":
            state = value
        elif not line and name:
            found[name] = state
            name = ""
    return found
