"""A member's side of the heartbeat."""

from __future__ import annotations

import http.client

from node_bootstrap import jsondata
from node_bootstrap.agent.protocol import Directive, Heartbeat
from node_bootstrap.agent.server import MEMBERS
from node_bootstrap.jsondata import ContractError

UNAUTHORIZED = 401


class UnheardError(Exception):
    """The primary did not answer, or not with a directive. status: HTTP's, 0 without one."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def send(beat: Heartbeat, host: str, port: int, token: str, *, timeout_seconds: float) -> Directive:
    """Send one heartbeat, return the primary's directive.

    A connection of its own each time: one that is kept would hang on a cut link.

    Raises:
        UnheardError: no answer in time, a refusal, or an answer of another form.
    """
    connection = http.client.HTTPConnection(host, port, timeout=timeout_seconds)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    try:
        body = jsondata.to_json(beat, without_defaults=True).encode()
        connection.request("POST", MEMBERS + beat.name, body, headers)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise UnheardError(f"{host}:{port}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        text = content[:300].decode(errors="replace").strip()
        raise UnheardError(f"{host}:{port}: HTTP {answer.status} {text}", answer.status)
    try:
        return jsondata.from_json(Directive, content)
    except ContractError as error:
        raise UnheardError(f"{host}:{port}: {error}") from error
