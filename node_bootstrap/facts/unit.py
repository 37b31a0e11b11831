"""`systemctl show`: the state of one unit."""

from __future__ import annotations

from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

_PROPERTIES = ("Id", "LoadState", "ActiveState", "SubState", "Result", "NRestarts")
COMMAND = ("systemctl", "show", f"--property={','.join(_PROPERTIES)}", "nvidia-fabricmanager")


def command(unit: str) -> tuple[str, ...]:
    """The same of any unit."""
    return (*COMMAND[:-1], unit)


@dataclass(frozen=True)
class Unit:
    """load: `not-found` where it is not installed. result: `success`, or how it failed."""

    id: str
    load: str
    active: str
    sub: str
    result: str
    restarts: int

    @property
    def runs(self) -> bool:
        """Whether it is up."""
        return self.active == "active"


def parse(output: str) -> Unit | Unknown:
    """Lines of `Name=value`."""
    values = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    if "LoadState" not in values or "ActiveState" not in values:
        return Unknown(f"systemctl show is not understood: {first_line(output)}")
    restarts = values.get("NRestarts", "0")
    return Unit(
        values.get("Id", ""),
        values["LoadState"],
        values["ActiveState"],
        values.get("SubState", ""),
        values.get("Result", ""),
        int(restarts) if restarts.isdigit() else 0,
    )
