"""Where the account is reached and with which keys: endpoint.json, kept over restarts."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from moto.iam.models import iam_backends

from rehearsal.account.environment import ACCOUNT_ID

if TYPE_CHECKING:
    from pathlib import Path

ADMIN = "rehearsal-admin"
ADMIN_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}


class EndpointError(RuntimeError):
    """The account cannot listen where it must; the message says what to do."""


@dataclass(frozen=True)
class Endpoint:
    """What a client needs to know. pid: of the process that serves it."""

    url: str
    port: int
    pid: int
    region: str
    access_key_id: str
    secret_access_key: str

    @classmethod
    def read(cls, path: Path) -> Endpoint | None:
        """The endpoint written by an earlier process, or None."""
        if not path.exists():
            return None
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as fault:
            raise EndpointError(
                f"{path} cannot be read ({fault}): remove the rehearsal's folder and start again."
            ) from fault

    def write(self, path: Path) -> None:
        """For the owner's eyes only: it holds the admin's secret key."""
        fresh = path.with_suffix(".new")  # others read it at any moment
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(self), file, indent=2)
        fresh.replace(path)

    def served_by_us(self) -> Endpoint:
        """The same endpoint with this process's id."""
        return replace(self, pid=os.getpid())


def listen(port: int) -> socket.socket:
    """A listening socket on loopback; port 0: any free one.

    Raises:
        EndpointError: somebody else listens there.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as fault:
        listener.close()
        raise EndpointError(
            f"The account must listen on 127.0.0.1:{port} as before, since stacks and nodes know "
            f"that port, but it cannot ({fault}). End what listens there (`ss -ltnp`)."
        ) from fault
    listener.listen(128)
    return listener


def admin_keys() -> tuple[str, str]:
    """The admin user's static keys, made at the first start."""
    iam = iam_backends[ACCOUNT_ID]["aws"]
    if ADMIN not in {u.name for u in iam.users.values()}:
        iam.create_user("us-east-1", ADMIN)
        iam.put_user_policy(ADMIN, "admin", json.dumps(ADMIN_POLICY))
        iam.create_access_key(ADMIN)
    key = iam.list_access_keys(ADMIN)[0]
    return key.access_key_id, key.secret_access_key
