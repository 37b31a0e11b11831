"""HTTP of the agent: heartbeats from members, the group for who holds the token, metrics."""

from __future__ import annotations

import hmac
import http.server
import json
import socketserver
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from node_bootstrap import jsondata
from node_bootstrap.agent.protocol import Directive, Heartbeat, LeaveOrder, RestartOrder
from node_bootstrap.agent.reach import ReachOrder, reach
from node_bootstrap.jsondata import ContractError
from node_bootstrap.transfer.pair import MeasureOrder, MeasureReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from node_bootstrap.status import GroupReport

BODY_LIMIT_BYTES = 64 * 1024
MEMBERS = "/v1/members/"
RESTART = "/v1/group/restart"
LEAVE = "/v1/group/leave"
REACH = "/v1/reach"
MEASURE = "/v1/measure"
METRICS, MACHINE_METRICS = "/metrics", "/metrics/node"
"""Of the agent and its group; of the machine under them."""


@dataclass(frozen=True)
class Answers:
    """What the server asks of the agent; all may be called from any thread.

    token: the stack's token; empty while it is not known, then nobody is let in.
    hear: a heartbeat; None when this node is no primary or the member is not of its group.
    group: the group; None when this node is no primary.
    order: end a life of the group, or let it end; False when this node is no primary.
    machine: metrics of the machine.
    measure: take part in a measured transfer with a node of another group.
    """

    token: Callable[[], str]
    hear: Callable[[Heartbeat], Directive | None]
    group: Callable[[], GroupReport | None]
    registry: CollectorRegistry
    order: Callable[[RestartOrder | LeaveOrder], bool]
    machine: CollectorRegistry = field(default_factory=CollectorRegistry)
    measure: Callable[[MeasureOrder], MeasureReport] = lambda _: MeasureReport("", ready=False)


class AgentServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Serves in threads of its own; no name look-up, which hangs without a resolver."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], answers: Answers) -> None:
        """Bind and serve at once. OSError when the address is not there (yet) or in use."""
        self.answers = answers
        super().__init__(address, _Handler)
        threading.Thread(target=self.serve_forever, name="http", daemon=True).start()

    def server_bind(self) -> None:
        """HTTPServer's own asks the resolver for the machine's full name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: AgentServer  # pyright: ignore[reportIncompatibleVariableOverride] - always ours
    timeout = 5
    server_version = "moe-agent"
    sys_version = ""

    def do_GET(self) -> None:
        answers = self.server.answers
        if self.path == "/healthz":
            self._send(HTTPStatus.OK, b"ok\n", "text/plain")
        elif self.path in (METRICS, MACHINE_METRICS):
            told = answers.registry if self.path == METRICS else answers.machine
            self._send(HTTPStatus.OK, generate_latest(told), CONTENT_TYPE_LATEST)
        elif self.path == "/v1/group" and self._allowed():
            group = answers.group()
            if group is None:
                self._refuse(HTTPStatus.NOT_FOUND, "this node is not the primary of its group")
            else:
                self._json(jsondata.to_json(group))
        elif self.path != "/v1/group":
            self._refuse(HTTPStatus.NOT_FOUND, f"no such path: {self.path}")

    def do_POST(self) -> None:
        if not self.path.startswith((MEMBERS, RESTART, LEAVE, REACH, MEASURE)):
            self._refuse(HTTPStatus.NOT_FOUND, f"no such path: {self.path}")
            return
        if not self._allowed():
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > BODY_LIMIT_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {BODY_LIMIT_BYTES} bytes")
            return
        body = self.rfile.read(int(length))
        try:
            if self.path == RESTART:
                self._order(jsondata.from_json(RestartOrder, body))
            elif self.path == LEAVE:
                self._order(jsondata.from_json(LeaveOrder, body))
            elif self.path == REACH:
                self._json(jsondata.to_json(reach(jsondata.from_json(ReachOrder, body))))
            elif self.path == MEASURE:
                order = jsondata.from_json(MeasureOrder, body)
                self._json(jsondata.to_json(self.server.answers.measure(order)))
            else:
                self._hear(jsondata.from_json(Heartbeat, body))
        except ContractError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))

    def _hear(self, beat: Heartbeat) -> None:
        name = self.path.removeprefix(MEMBERS)
        answer = self.server.answers.hear(beat) if beat.name == name else None
        if answer is None:
            self._refuse(HTTPStatus.NOT_FOUND, f"{name} is no member of a group held here")
        else:
            self._json(jsondata.to_json(answer, without_defaults=True))

    def _order(self, order: RestartOrder | LeaveOrder) -> None:
        if self.server.answers.order(order):
            self._json(jsondata.to_json(order))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "this node is not the primary of its group")

    def _allowed(self) -> bool:
        token = self.server.answers.token()
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and hmac.compare_digest(given.encode(), token.encode()):
            return True
        self._refuse(HTTPStatus.UNAUTHORIZED, "the stack's token is needed")
        return False

    def _json(self, text: str) -> None:
        self._send(HTTPStatus.OK, text.encode(), "application/json")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(status, json.dumps({"error": why}).encode() + b"\n", "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """One line a second from every member would hide what matters."""
