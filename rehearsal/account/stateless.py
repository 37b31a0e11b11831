"""A machine that boots nothing: instances that only have states, for stacks of any size."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rehearsal.machine.interface import ImageState, InstanceState, Launch, Rule

BOOT_SECONDS = 1.0
"""How long an instance is pending, and how long its end takes: long enough to be seen."""


class Stateless:
    """Implements Machine with states only. Not thread-safe: the account holds its lock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states: dict[str, tuple[InstanceState, InstanceState, float]] = {}

    def adopt(self, instance_id: str, state: InstanceState) -> None:
        """Know an instance of an earlier process in the state it was left in."""
        self._states[instance_id] = (state, state, 0.0)

    def _go(self, instance_id: str, now: InstanceState, then: InstanceState) -> None:
        self._states[instance_id] = (now, then, self._clock() + BOOT_SECONDS)

    def launch(self, launch: Launch) -> None:
        """Pending for BOOT_SECONDS, then running."""
        self._go(launch.instance_id, "pending", "running")

    def start(self, instance_id: str) -> None:
        """Pending for BOOT_SECONDS, then running."""
        self._go(instance_id, "pending", "running")

    def stop(self, instance_id: str, *, force: bool) -> None:  # noqa: ARG002  # the protocol's name
        """Stopped after BOOT_SECONDS."""
        self._go(instance_id, "running", "stopped")

    def reboot(self, instance_id: str) -> None:
        """Nothing to restart: the state stays."""

    def terminate(self, instance_id: str) -> None:
        """Terminated after BOOT_SECONDS. Unknown ids are no error."""
        if instance_id in self._states:
            self._go(instance_id, "running", "terminated")

    def state(self, instance_id: str) -> InstanceState:
        """`terminated` when unknown."""
        now, then, due = self._states.get(instance_id, ("terminated", "terminated", 0.0))
        reached = then if self._clock() >= due else now
        if reached == "terminated":
            self._states.pop(instance_id, None)
        return reached

    def console(self, instance_id: str) -> bytes:  # noqa: ARG002  # the protocol's name
        """Always empty: nothing runs."""
        return b""

    def make_image(self, image_id: str, instance_id: str) -> None:
        """Nothing to copy."""

    def image_state(self, image_id: str) -> ImageState:  # noqa: ARG002  # the protocol's name
        """Whole at once."""
        return "available"

    def forget_image(self, image_id: str) -> None:
        """Nothing to remove."""

    def firewall(self, vpc_id: str, rules: Sequence[Rule]) -> None:
        """Nothing to filter."""
