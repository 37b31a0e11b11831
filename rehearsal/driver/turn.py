"""One command at a time on a rehearsal: `down` beside a running `up` would leave half of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rehearsal.driver.errors import DriverError
from rehearsal.paths import Home

PATIENCE_SECONDS = 5.0
"""An interrupted command may still be on its way out when the next one starts."""
_LOOK_AGAIN_SECONDS = 0.1


@contextmanager
def turn(home: Home, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Hold the rehearsal for one command.

    What is held is an abstract socket's name: the kernel frees it with the process, however that
    ends, and no file stays behind that the end of the rehearsal would have to spare.

    Raises:
        DriverError: another command is at work on it and did not end within `patience_seconds`.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as name:
        _take(name, home, time.monotonic() + patience_seconds)
        yield


def _take(name: socket.socket, home: Home, deadline: float) -> None:
    while True:
        try:
            name.bind(f"\0moe-serving-{home.tag}")
        except OSError as error:
            if time.monotonic() >= deadline:
                raise DriverError(
                    f"Another command is at work on the rehearsal in {home.root}. Wait for its "
                    "end, or interrupt it (^C) and run this one again."
                ) from error
            time.sleep(_LOOK_AGAIN_SECONDS)
        else:
            return
