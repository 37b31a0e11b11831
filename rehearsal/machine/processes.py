"""Signals to processes that may end at any moment."""

from __future__ import annotations

import contextlib
import os
import select
import signal


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that has ended by itself is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def end(pid: int, number: signal.Signals, patience_s: float) -> None:
    """Ask a process to end and return once it has; after `patience_s` it is killed.

    It is held by a descriptor: its number may be another's by then.
    """
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, number)
            if not select.select([process], [], [], patience_s)[0]:
                signal.pidfd_send_signal(process, signal.SIGKILL)
        select.select([process], [], [])
    finally:
        os.close(process)
