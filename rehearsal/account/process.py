"""The account's process: state loaded, machine attached, endpoint written, requests served."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import make_server

from rehearsal.account import balancers, managed, quotas
from rehearsal.account.ec2 import api
from rehearsal.account.ec2.backend import backend_of
from rehearsal.account.endpoint import Endpoint, EndpointError, admin_keys, listen
from rehearsal.account.environment import ACCOUNT_ID
from rehearsal.account.faults import Faults
from rehearsal.account.iam import authorize, simulate
from rehearsal.account.metadata import Metadata
from rehearsal.account.persistence import StateError, Store
from rehearsal.account.server import Account

if TYPE_CHECKING:
    from rehearsal.machine.interface import Machine
    from rehearsal.paths import Home

__all__ = ["EndpointError", "StateError", "build", "serve"]

log = logging.getLogger(__name__)

MachineFactory = Callable[[Account, Metadata], "Machine | None"]
"""Makes the machine for an account; None: this account can't boot instances."""


class QuietHandler(MotoRequestHandler):
    """moto's, without a line per request: the log is for what went wrong."""

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Nothing."""


def build(home: Home, region: str, machine: MachineFactory) -> Account:
    """The account with its earlier state, or a new one.

    Raises:
        StateError: the earlier state cannot be read.
    """
    lock = threading.RLock()
    home.account.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = Store(home.account, lock)
    account = Account(lock, store, Faults(home.account / "faults.json"))
    api.install(account)
    quotas.install()
    balancers.install()
    managed.install()
    authorize.install()
    simulate.install()
    store.load()
    backend_of(ACCOUNT_ID, region)
    account.use(machine(account, Metadata(lock, account.backends, store.changed)))
    return account


def _close_machine(account: Account) -> None:
    """Containers serve metadata on threads of this process, which must not meet its end."""
    close = getattr(account.life.machine, "close", None)
    if close is not None:
        close()


def serve(home: Home, region: str, machine: MachineFactory, port: int = 0) -> None:
    """Serve until SIGTERM, SIGINT or the control path `shutdown`; saves at the end.

    Args:
        home: folder of the rehearsal.
        region: the account's region at its first start.
        machine: makes the machine.
        port: where to listen at the first start; 0: any free port.

    Raises:
        EndpointError: the port of the earlier process is taken.
        StateError: the earlier state cannot be read.
    """
    path = home.account / "endpoint.json"
    earlier = Endpoint.read(path)
    listener = listen(earlier.port if earlier else port)
    account = build(home, earlier.region if earlier else region, machine)
    key, secret = admin_keys()
    port = listener.getsockname()[1]
    server = make_server(
        "127.0.0.1",
        port,
        account,
        threaded=True,
        request_handler=QuietHandler,
        fd=listener.fileno(),
    )
    account.stop = server.shutdown

    def ended(*_: object) -> None:
        # shutdown() waits for serve_forever, which runs on this very thread.
        threading.Thread(target=server.shutdown, name="account-stop").start()

    signal.signal(signal.SIGTERM, ended)
    signal.signal(signal.SIGINT, ended)
    account.store.save()
    account.store.start()
    threading.Thread(target=account.watch, name="account-watch", daemon=True).start()
    url = f"http://127.0.0.1:{port}"
    endpoint = Endpoint(url, port, 0, earlier.region if earlier else region, key, secret)
    endpoint.served_by_us().write(path)
    log.info("The account %s is served at %s", ACCOUNT_ID, url)
    try:
        server.serve_forever()
    finally:
        _close_machine(account)
        account.store.close()
        sys.stderr.flush()
