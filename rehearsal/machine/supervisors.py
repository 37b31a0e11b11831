"""The processes that hold instances, one each: started, watched, waited for."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from rehearsal.machine import instance
from rehearsal.machine.instance import CONTROL_SIGNALS, Folder
from rehearsal.paths import CHECKOUT, Home

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


class Watcher:
    """Calls back when a supervisor writes or ends; sleeps in between."""

    def __init__(self, home: Home, changed: Callable[[str], None]) -> None:
        home.instances.mkdir(parents=True, exist_ok=True)
        path = home.instances / instance.EVENTS
        if not path.exists():
            os.mkfifo(path, 0o600)
        # Read and write: with its own writer it never meets the end of the file.
        self._news = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake, self._waker = os.pipe()
        self._changed = changed
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._news, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="instances", daemon=True)
        self._thread.start()

    def watch(self, pid: int, instance_id: str) -> None:
        """Call back when this supervisor ends."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._changed(instance_id)
            return
        self._selector.register(descriptor, selectors.EVENT_READ, instance_id)

    def close(self) -> None:
        """End the thread; a second time does nothing."""
        if not self._thread.is_alive():
            return
        os.write(self._waker, b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        self._selector.close()
        os.close(self._waker)

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._wake:
                    return
                if key.fd == self._news:
                    for instance_id in os.read(self._news, 4096).decode().split():
                        self._tell(instance_id)
                else:
                    self._selector.unregister(key.fd)
                    os.close(key.fd)
                    self._tell(key.data)

    def _tell(self, instance_id: str) -> None:
        try:
            self._changed(instance_id)
        except Exception:
            log.exception("telling of %s", instance_id)


def spawn(folder: Folder, lock: int) -> subprocess.Popen[bytes]:
    """Start the process that holds an instance. lock: a descriptor that it inherits."""
    # Blocked until the supervisor listens: a stop that comes at once must not end it unheard.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, CONTROL_SIGNALS)
    try:
        with folder.supervisor_log.open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "rehearsal.machine.supervisor", str(folder.path)],
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=(lock,),
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    folder.note_supervisor(child.pid)
    return child
