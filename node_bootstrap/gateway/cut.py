"""Ends connections to nodes that are gone without a word.

A process that ends closes its connections. A node without power or without its link doesn't: the
router would wait for its answer until its own limit, minutes later, and nobody would ask another
group or tell the client of a stream.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from node_bootstrap import runner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from node_bootstrap.assignment import GatewayGroup

log = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0
AGAIN_SECONDS = 2.0
FOR_SECONDS = 30.0
"""The router may have begun another connection just before the group was taken from it."""


class Cutter:
    """See the module. `look` may be called from one thread."""

    def __init__(self, end: Callable[[str, int], None] | None = None) -> None:
        """Nobody is gone yet. end: ends what is connected to an address and port."""
        self._end = end or end_connections
        self._gone: Mapping[str, GatewayGroup] = {}
        self._closed = threading.Event()

    def look(self, silent: Mapping[str, GatewayGroup]) -> None:
        """Take up which groups are silent now, by name; see to those that just became so."""
        new = silent.keys() - self._gone.keys()
        self._gone = silent
        for name in new:
            threading.Thread(target=self._see_to, args=(name,), name="cut", daemon=True).start()

    def close(self) -> None:
        """End nothing more."""
        self._closed.set()

    def _see_to(self, name: str) -> None:
        until = time.monotonic() + FOR_SECONDS
        while time.monotonic() < until and (group := self._gone.get(name)) is not None:
            for url in group.urls:
                where = urlsplit(url)
                address, port = where.hostname or "", where.port or 80
                # Silent for another reason, it may still answer what it was asked.
                if unreachable(address, port):
                    log.warning("%s: %s takes no connection: those to it are ended", name, url)
                    self._end(address, port)
            if self._closed.wait(AGAIN_SECONDS):
                return


def unreachable(address: str, port: int) -> bool:
    """Whether a node says nothing at all to a connection; a refusal is an answer."""
    try:
        socket.create_connection((address, port), timeout=CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    return False


def end_connections(address: str, port: int) -> None:
    """Have the kernel end this node's connections to an address and port, at once.

    The kernels of Debian, Ubuntu and Amazon Linux are built with INET_DIAG_DESTROY, which it needs.
    """
    try:
        runner.run(["ss", "-K", "dst", f"{address}:{port}"], timeout_seconds=10)
    except runner.CommandError as error:
        log.warning("connections to %s:%d could not be ended: %s", address, port, error)
