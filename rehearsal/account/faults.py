"""Faults that AWS has on a bad day, injected by tests through the control path `faults`.

The list is a file of its own beside the account's state, written at each change: a fault that was
used up must not come back with a restart.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from rehearsal.account.ec2.errors import Refusal
from rehearsal.account.life import AWS, SPOT, Life

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rehearsal.account.ec2.backend import Backend

Kind = Literal[
    "insufficient-capacity",
    "throttle",
    "slow-start",
    "terminate",
    "spot-interruption",
    "reservation-expired",
    "cut-download",
    "wrong-file",
]
NEEDS: dict[str, dict[str, type]] = {
    "insufficient-capacity": {"launch": int},
    "throttle": {"action": str, "calls": int},
    "slow-start": {"seconds": int},
    "terminate": {"id": str},
    "spot-interruption": {"id": str},
    "reservation-expired": {"id": str},
    "cut-download": {"file": str, "bytes": int, "calls": int},
    "wrong-file": {"file": str, "calls": int},
}
"""What each kind must say besides its kind, and nothing else."""
STILL_TO_COME = ("insufficient-capacity", "throttle", "slow-start", "cut-download", "wrong-file")
NO_CAPACITY = Refusal(
    "InsufficientInstanceCapacity",
    "We currently do not have sufficient capacity in the Availability Zone you requested. "
    "(A fault injected into the rehearsal.)",
)


@dataclass(frozen=True)
class Fault:
    """One fault.

    launch: which instance launched from now on finds no capacity, 1 is the next one.
    action, calls: an API action and how many of its next calls are throttled.
    seconds: how long each launched instance stays pending. id: of an instance or a reservation.
    file, bytes: the next `calls` downloads of a file of the package index whose name begins so
        end after so many bytes, or bring a file of another digest.
    """

    kind: Kind
    launch: int = 0
    action: str = ""
    calls: int = 0
    seconds: int = 0
    id: str = ""
    file: str = ""
    bytes: int = 0


def parse(given: object) -> tuple[list[Fault], list[str]]:
    """The faults of a list from outside, and everything that is wrong with it. Pure."""
    if not isinstance(given, list):
        return [], ['Expected a list of faults, e.g. [{"kind": "slow-start", "seconds": 5}].']
    faults: list[Fault] = []
    wrong: list[str] = []
    for index, entry in enumerate(cast("list[Any]", given)):
        kind = entry.get("kind") if isinstance(entry, dict) else None
        if kind not in NEEDS:
            wrong.append(f"[{index}]: kind must be one of {', '.join(get_args(Kind))}.")
            continue
        rest = {k: v for k, v in entry.items() if k != "kind"}
        if set(rest) != set(NEEDS[kind]) or any(
            type(rest[k]) is not t or not rest[k] or (t is int and rest[k] < 1)
            for k, t in NEEDS[kind].items()
        ):
            named = ", ".join(f"{k} ({t.__name__})" for k, t in NEEDS[kind].items())
            wrong.append(f"[{index}]: {kind} takes exactly {named}; numbers are 1 or more.")
            continue
        faults.append(Fault(kind, **rest))
    return faults, wrong


class Faults:
    """The faults still to come. Each call that uses one up writes the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        saved = json.loads(path.read_text()) if path.exists() else []
        self._list = [Fault(**entry) for entry in saved]

    def listed(self) -> list[dict[str, Any]]:
        """The faults still to come, in the form that `parse` takes."""
        return [
            {k: v for k, v in asdict(f).items() if k == "kind" or k in NEEDS[f.kind]}
            for f in self._list
        ]

    def put(self, faults: list[Fault]) -> None:
        """These and no others from now on."""
        with self._lock:
            self._write(faults)

    def throttled(self, action: str) -> bool:
        """Whether this call of an action is refused; counts it."""
        with self._lock:
            for index, fault in enumerate(self._list):
                if fault.kind == "throttle" and fault.action == action:
                    self._use_up(index)
                    return True
        return False

    def launching(self, count: int) -> Refusal | None:
        """Why a launch of so many instances finds no capacity; counts its instances."""
        with self._lock:
            waiting = [f for f in self._list if f.kind == "insufficient-capacity"]
            if not waiting:
                return None
            hit = any(f.launch <= count for f in waiting)
            counted = [
                replace(f, launch=f.launch - count) if f in waiting else f
                for f in self._list
                if f not in waiting or f.launch > count
            ]
            self._write(counted)
        return NO_CAPACITY if hit else None

    def download(self, name: str) -> tuple[str, int] | None:
        """How the download of a file of the package index is broken; counts it."""
        with self._lock:
            for index, fault in enumerate(self._list):
                if fault.file and name.startswith(fault.file):
                    self._use_up(index)
                    return fault.kind, fault.bytes
        return None

    def pending_seconds(self) -> float:
        """How long a launched instance stays pending at least."""
        return float(max((f.seconds for f in self._list if f.kind == "slow-start"), default=0))

    def _use_up(self, index: int) -> None:
        """Count one call of a fault."""
        fault = self._list[index]
        left = [replace(fault, calls=fault.calls - 1)] if fault.calls > 1 else []
        self._write([*self._list[:index], *left, *self._list[index + 1 :]])

    def _write(self, faults: list[Fault]) -> None:
        self._list = faults
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps([asdict(f) for f in faults]))
        beside.replace(self._path)


def at_once(
    fault: Fault, backends: Sequence[Backend], life: Life
) -> Callable[[], Any] | str | None:
    """What a fault does now, what is wrong with it, or None: it is still to come."""
    if fault.kind in STILL_TO_COME:
        return None
    for backend in backends:
        if fault.kind == "reservation-expired":
            reservation = backend.capacity_reservations.get(fault.id)
            if reservation is not None:
                return lambda r=reservation: setattr(r, "state", "expired")
        for instance in backend.instances():
            if instance.id == fault.id and instance.state != "terminated":
                if fault.kind == "terminate":
                    return lambda i=instance: life.terminate(i, AWS)
                if instance.instance_lifecycle != "spot":
                    return f"{fault.id} is no spot instance."
                return lambda i=instance: life.terminate(i, SPOT)
    return f"{fault.kind}: there is no {fault.id}."
