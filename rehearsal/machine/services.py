"""What the account's process serves inside each VPC: metadata, and its own API."""

from __future__ import annotations

import logging
import secrets
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from rehearsal.machine import imds, netns
from rehearsal.machine.interface import (
    ACCOUNT_ADDRESS,
    ACCOUNT_PORT,
    INDEX_ADDRESS,
    INDEX_PORT,
    METADATA_ADDRESS,
    MachineError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from socketserver import BaseServer
    from wsgiref.types import WSGIApplication

log = logging.getLogger(__name__)
METADATA_PORT = 80
IDLE_TIMEOUT_S = 15.0


class VpcServices:
    """The listening sockets of one VPC, with a thread each; `close` ends them."""

    def __init__(
        self,
        namespace: str,
        key_file: Path,
        tree: Callable[[str], dict[str, Any] | None],
        app: WSGIApplication,
        index: WSGIApplication | None = None,
    ) -> None:
        """Open the sockets in the VPC's namespace and serve on them.

        Args:
            namespace: of the VPC.
            key_file: signs metadata tokens; made where missing.
            tree: source address → metadata tree.
            app: the account.
            index: the package index; None: nothing answers there.

        Raises:
            MachineError: a socket can't be opened.
        """
        metadata = _listen(namespace, METADATA_ADDRESS, METADATA_PORT)
        account = _listen(namespace, ACCOUNT_ADDRESS, ACCOUNT_PORT)
        self._sockets = [metadata, account]
        self._servers: dict[str, BaseServer] = {
            "metadata": _MetadataServer(metadata, imds.Tokens(_key(key_file)), tree),
            "account": _wsgi_server(account, app),
        }
        if index is not None:
            packages = _listen(namespace, INDEX_ADDRESS, INDEX_PORT)
            self._sockets.append(packages)
            self._servers["index"] = _wsgi_server(packages, index)
        self._threads = [
            threading.Thread(target=server.serve_forever, name=f"{namespace} {role}", daemon=True)
            for role, server in self._servers.items()
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop serving and free the addresses."""
        for server in self._servers.values():
            server.shutdown()
            server.server_close()
        for listener in self._sockets:
            listener.close()


def _listen(namespace: str, address: str, port: int) -> socket.socket:
    def make() -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(512)
        return listener

    try:
        return netns.inside(namespace, make)
    except OSError as error:
        raise MachineError(
            f"{address}:{port} in {namespace} can't be served ({error.strerror}): is another "
            "process of the same account still running?"
        ) from error


def _key(path: Path) -> bytes:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(secrets.token_bytes(32))
    return path.read_bytes()


class _MetadataServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        listener: socket.socket,
        tokens: imds.Tokens,
        tree: Callable[[str], dict[str, Any] | None],
    ) -> None:
        # The socket listens already: http.server's own binding asks DNS for the host's name.
        super().__init__((METADATA_ADDRESS, METADATA_PORT), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.tokens = tokens
        self.tree = tree


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "EC2ws"
    sys_version = ""
    timeout = IDLE_TIMEOUT_S
    server: _MetadataServer  # pyright: ignore[reportIncompatibleVariableOverride] - narrower

    def do_PUT(self) -> None:
        # A body that stays unread would be taken for the next request.
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._say(imds.answer_put(self.path, self.headers, self._address, self.server.tokens))

    def do_GET(self) -> None:
        try:
            tree = self.server.tree(self._address)
            answer = imds.answer_get(
                self.path, self.headers, self._address, self.server.tokens, tree
            )
        except Exception:
            log.exception("metadata %s for %s", self.path, self._address)
            answer = imds.Answer(500)
        self._say(answer)

    @property
    def _address(self) -> str:
        return str(self.client_address[0])

    def _say(self, answer: imds.Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        log.debug("metadata %s %s", self._address, format % args)


def _wsgi_server(listener: socket.socket, app: WSGIApplication) -> BaseServer:
    # Supervisors import this package too: werkzeug would cost each of them a quarter second.
    from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415 - for the reason above

    class Quiet(WSGIRequestHandler):
        timeout = IDLE_TIMEOUT_S

        def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
            log.debug("served %s %s", type, message % args if args else message)

    address, port = listener.getsockname()
    return make_server(
        address,
        port,
        app,
        threaded=True,
        fd=listener.fileno(),
        request_handler=Quiet,
    )
