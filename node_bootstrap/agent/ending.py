"""The end of a node that has a time to live: nobody need come back to switch it off.

systemd powers the node off, so that a dead agent does not keep it alive; the agent sets systemd's
timer, anew whenever the end moves.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from node_bootstrap import durable, runner
from node_bootstrap.agent.store import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from node_bootstrap.agent.identity import Identity
    from node_bootstrap.ttl import Ttl

log = logging.getLogger(__name__)

POLL_SECONDS = 10.0
"""How often the bucket is asked whether the end was moved."""
WARN_SECONDS = (600.0, 60.0)
"""So long before the end it is said, in the journal and on the console."""
MOVED_SECONDS = 1.0
"""Ends that differ by less are one: systemd's timer is not set anew for that."""


@dataclass(frozen=True)
class Lifetime:
    """What is remembered over restarts and reboots.

    since: the first boot of this instance. until: the last end that the bucket said, 0 for none.
    Both in seconds since the epoch.
    """

    instance_id: str
    since: float
    until: float = 0.0


def end_of(life: Lifetime, ttl: Ttl) -> float:
    """When the node ends: its time to live, or later where the bucket says so."""
    return max(life.since + ttl.seconds, life.until)


def first_boot(saved: Lifetime | None, identity: Identity) -> Lifetime:
    """The life of this instance: a reboot does not begin it anew."""
    if saved is None or saved.instance_id != identity.instance_id:
        return Lifetime(identity.instance_id, identity.booted_at)
    return Lifetime(saved.instance_id, min(saved.since, identity.booted_at), saved.until)


class Timer(Protocol):
    """Powers the node off later, whatever becomes of the agent."""

    def arm(self, seconds: float) -> None:
        """Power off in so many seconds; an earlier arm counts no more. CommandError."""
        ...

    def disarm(self) -> None:
        """Don't power off. CommandError."""
        ...


class SystemdTimer:
    """A transient timer of systemd, which the next arm replaces."""

    UNIT = "moe-end"

    def arm(self, seconds: float) -> None:
        """See Timer."""
        self.disarm()
        command = ["systemd-run", "--collect", f"--unit={self.UNIT}", "--timer-property"]
        command += ["AccuracySec=1s", f"--on-active={max(0.0, seconds):.0f}s"]
        runner.run([*command, "systemctl", "poweroff"], timeout_seconds=20)

    def disarm(self) -> None:
        """See Timer."""
        # Stopping what is not there is an error to systemctl, so it is asked first.
        pattern = f"{self.UNIT}.timer"
        listed = runner.run(
            ["systemctl", "list-units", "--all", "--plain", "--no-legend", pattern],
            timeout_seconds=20,
        )
        if listed.strip():
            runner.run(["systemctl", "stop", pattern], timeout_seconds=20)


class Ending:
    """Keeps systemd's timer at the node's end. All methods may be called from any thread.

    It works in a thread of its own: neither hours of weights nor a slow bucket may hide that the
    end was moved.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity,
        timer: Timer | None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Take up what the last agent knew; nothing is set before `assign`.

        Args:
            path: what is remembered.
            identity: of this node.
            timer: None where nothing can power the node off; the end is then only told.
            now: seconds since the epoch.
        """
        self._path = path
        self._timer = timer
        self._now = now
        self._life = first_boot(durable.load(path, Lifetime), identity)
        self._ttl: Ttl | None = None
        # An earlier agent may have set a timer for a time to live that is gone since.
        self._new = path.exists()
        self._extension: Callable[[str], float | None] | None = None
        self._armed: float | None = None
        self._warned: tuple[float, ...] = ()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def ends_at(self) -> float | None:
        """When the node powers itself off; None: never."""
        ttl = self._ttl
        return None if ttl is None else end_of(self._life, ttl)

    def ask(self, extension: Callable[[str], float | None]) -> None:
        """`extension`: reads from the bucket until when the nodes may live (StoreError)."""
        self._extension = extension

    def assign(self, ttl: Ttl | None) -> None:
        """Take the time to live of the assignment; cheap where it is no other."""
        if ttl == self._ttl and not self._new:
            return
        self._ttl, self._new = ttl, False
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="ending", daemon=True)
            self._thread.start()
        self._wake.set()

    def close(self) -> None:
        """Look no more; systemd's timer goes on."""
        self._closed = True
        self._wake.set()

    def turn(self) -> None:
        """Look once: read the bucket, set the timer where the end moved, warn."""
        ttl = self._ttl
        self._read(ttl)
        end = self.ends_at
        try:
            self._set(end)
        except runner.CommandError as error:
            log.error("the end of this node could not be set: %s", error)  # noqa: TRY400
        if end is not None:
            self._warn(end - self._now())

    def _work(self) -> None:
        while not self._closed:
            self.turn()
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()

    def _read(self, ttl: Ttl | None) -> None:
        if ttl is None:
            return
        try:
            said = self._extension(ttl.key) if self._extension is not None else None
        except StoreError as error:  # what was said before holds
            log.warning("%s", error)
            said = None
        until = self._life.until if said is None else said
        life = Lifetime(self._life.instance_id, self._life.since, until)
        if life != self._life or not self._path.exists():
            durable.save(self._path, life)
        self._life = life

    def _set(self, end: float | None) -> None:
        if end is None:
            if self._path.exists():
                if self._timer is not None:
                    self._timer.disarm()
                self._path.unlink()
            self._armed = None
            return
        if self._armed is not None and abs(end - self._armed) < MOVED_SECONDS:
            return
        left = end - self._now()
        if self._timer is not None:
            self._timer.arm(left)
        if self._armed is None or end > self._armed:
            self._warned = ()
        self._armed = end
        log.info("this node powers itself off in %.0f s", left)

    def _warn(self, left: float) -> None:
        due = [mark for mark in WARN_SECONDS if left <= mark and mark not in self._warned]
        if due:
            self._warned = (*self._warned, *due)
            log.warning("this node powers itself off in %.0f s; `moe extend` moves that", left)
