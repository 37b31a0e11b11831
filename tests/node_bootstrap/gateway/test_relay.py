"""The relay as a process of its own, between a front and a router that dies in many ways."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from node_bootstrap.files import relay as program

JSON = b'{"choices": [{"text": " are"}]}'
EVENT = b'data: {"choices": [{"text": " are"}]}\n\n'
LAST = b'data: {"choices": [{"text": " all", "finish_reason": "length"}]}\n\n'
DONE = b"data: [DONE]\n\n"
ABORT = b'{"choices":[{"text":"","finish_reason":"abort"}]}'
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
"""Starts the program with a listening socket, as systemd does."""
START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); "
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); "
    "os.execv(sys.executable, [sys.executable, '-I', *sys.argv[2:]])"
)


def whole(content: bytes = JSON, status: str = "200 OK") -> bytes:
    length = len(content)
    kind = "Content-Type: application/json"
    return f"HTTP/1.1 {status}\r\n{kind}\r\nContent-Length: {length}\r\n\r\n".encode() + content


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass
class Router:
    """Answers each connection with the next of its bytes, then closes it; the last one stays."""

    answers: list[bytes]
    asked: list[bytes] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    def __post_init__(self) -> None:
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            data = connection.recv(1 << 20)
            while b"\r\n\r\n" not in data or len(data) < expected(data):
                data += connection.recv(1 << 20)
            self.asked.append(data)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            connection.sendall(answer)
            if answer.endswith(b"HANG"):
                assert connection.recv(1) == b""
                self.left.set()


def expected(data: bytes) -> int:
    head, _, _ = data.partition(b"\r\n\r\n")
    lengths = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")]
    return len(head) + 4 + (int(lengths[0].split(b" ")[1]) if lengths else 0)


class OverSocket(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("relay", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


@dataclass
class Running:
    folder: Path
    process: subprocess.Popen[bytes]

    def route(self, router: Router | None, **more: Any) -> None:
        new = self.folder / "route.new"
        upstream = router.address if router else "127.0.0.1:1"
        document = {"open": True, "upstream": upstream, "wait_seconds": 5.0, "waiting": 9, **more}
        new.write_text(json.dumps(document))
        new.replace(self.folder / "route.json")

    def begin(self, body: bytes | Iterator[bytes] = b"{}") -> http.client.HTTPResponse:
        connection = OverSocket(self.folder / "relay.sock")
        connection.request("POST", "/v1/completions", body, encode_chunked=True)
        return connection.getresponse()

    def ask(self, body: bytes | Iterator[bytes] = b"{}") -> tuple[int, bytes]:
        answer = self.begin(body)
        return answer.status, answer.read()

    def log(self) -> str:
        return (self.folder / "log").read_text()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Running]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "relay.sock"))
    listener.listen()
    argv = [sys.executable, "-c", START, str(listener.fileno()), program.__file__]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*argv, str(folder / "route.json"), "5"],
            pass_fds=[listener.fileno()],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    yield Running(folder, process)
    process.terminate()
    process.wait(10)
    listener.close()


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("relay")) as one:
        yield one


@pytest.mark.parametrize(
    "answer",
    [whole(), SSE.replace(b"text/event-stream", b"application/json") + chunk(JSON) + chunk(b"")],
)
def test_an_answer_comes_as_the_router_gave_it(relay: Running, answer: bytes) -> None:
    router = Router([answer])
    relay.route(router)
    assert relay.ask(b'{"prompt": "The experts"}') == (200, JSON)
    assert router.asked[0].endswith(b'\r\n\r\n{"prompt": "The experts"}')


def test_a_body_without_a_length_is_sent_with_one(relay: Running) -> None:
    router = Router([whole()])
    relay.route(router)
    assert relay.ask(iter([b'{"prompt"', b': "x"}']))[0] == 200
    assert b"Content-Length: 15" in router.asked[0]
    assert router.asked[0].endswith(b'\r\n\r\n{"prompt": "x"}')


@pytest.mark.parametrize(
    "failure",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-",
        whole()[:-1],
        whole(ABORT),
        whole(b"{}", "500 Internal Server Error"),
        whole(b"{}", "503 Service Unavailable"),
        SSE,
        SSE + chunk(EVENT)[:-9],
        SSE + chunk(DONE) + chunk(b""),
        SSE + chunk(EVENT + DONE) + chunk(b""),
        SSE + chunk(b'data: {"error": {"message": "engine died", "code": 500}}\n\n'),
        SSE + chunk(b"data: " + ABORT + b"\n\n") + chunk(DONE) + chunk(b""),
    ],
    ids=[
        "nothing",
        "half-a-head",
        "half-an-answer",
        "aborted",
        "500",
        "503",
        "no-event",
        "half-event",
        "done-alone",
        "done-unfinished",
        "event-500",
        "event-aborted",
    ],
)
def test_what_was_not_yet_answered_in_part_is_sent_again(relay: Running, failure: bytes) -> None:
    router = Router([failure, whole()])
    relay.route(router)
    assert relay.ask() == (200, JSON)
    assert len(router.asked) == 2
    assert router.asked[0] == router.asked[1]
    assert "try 1 of 3" in relay.log()


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "404 Not Found"])
def test_a_fault_of_the_client_is_never_sent_again(relay: Running, status: str) -> None:
    router = Router([whole(b"{}", status)])
    relay.route(router)
    assert relay.ask() == (int(status[:3]), b"{}")
    assert len(router.asked) == 1


def test_an_error_that_an_engine_tells_within_a_stream_is_its_end(relay: Running) -> None:
    stream = EVENT + b'data: {"error": {"message": "engine died", "code": 500}}\n\n' + DONE
    relay.route(Router([SSE + chunk(stream[: len(EVENT)]) + chunk(stream[len(EVENT) :])]))
    assert relay.ask() == (200, stream)


def test_a_fault_of_the_client_within_a_stream_passes(relay: Running) -> None:
    event = b'data: {"error": {"message": "too long", "code": 400}}\n\n'
    router = Router([SSE + chunk(event) + chunk(DONE) + chunk(b"")])
    relay.route(router)
    assert relay.ask() == (200, event + DONE)
    assert len(router.asked) == 1


def test_after_the_last_try_the_routers_own_answer_passes(relay: Running) -> None:
    router = Router([whole(b'{"error": 1}', "500 Internal Server Error")])
    relay.route(router, retries=1)
    assert relay.ask() == (500, b'{"error": 1}')
    assert len(router.asked) == 2


def test_without_retries_a_request_is_sent_once(relay: Running) -> None:
    router = Router([b""])
    relay.route(router, retries=0)
    status, content = relay.ask()
    assert (status, len(router.asked)) == (502, 1)
    assert json.loads(content)["error"]["code"] == "unavailable"


def test_a_router_that_is_not_there_costs_no_try_and_is_waited_for(relay: Running) -> None:
    relay.route(None, retries=0)
    router = Router([whole()])
    threading.Timer(0.7, lambda: relay.route(router, retries=0)).start()
    assert relay.ask() == (200, JSON)


def test_a_retry_waits_until_the_route_is_open_and_no_longer_than_it_may(relay: Running) -> None:
    class Last(Router):
        def _answer(self, connection: socket.socket) -> None:
            relay.route(self, open=False, wait_seconds=2.0)
            super()._answer(connection)

    router = Last([b""])
    relay.route(router, wait_seconds=2.0)
    started = time.monotonic()
    assert relay.ask()[0] == 502
    assert 1.5 < time.monotonic() - started < 10
    assert len(router.asked) == 1


def test_events_pass_as_they_come(relay: Running) -> None:
    router = Router([SSE + chunk(EVENT) + b"HANG"])
    relay.route(router)
    answer = relay.begin()
    assert answer.read(len(EVENT)) == EVENT
    answer.close()
    assert router.left.wait(3), "the client left, so the router is left"


@pytest.mark.parametrize(
    "cut",
    [
        b"",
        chunk(b""),
        chunk(b'data: {"choices": [')[:-2],
        b"19\r\ndata: {",
        chunk(b"data: " + ABORT + b"\n\n") + chunk(DONE) + chunk(b""),
        chunk(DONE) + chunk(b""),
    ],
    ids=["between-events", "without-done", "in-an-event", "in-a-chunk", "aborted", "unfinished"],
)
def test_a_cut_stream_ends_with_an_error_event_and_is_not_sent_again(
    relay: Running, cut: bytes
) -> None:
    router = Router([SSE + chunk(EVENT) + cut])
    relay.route(router)
    status, content = relay.ask()
    assert status == 200
    assert content.startswith(EVENT)
    error = json.loads(content[len(EVENT) :].removeprefix(b"data: "))["error"]
    assert error["code"] == "interrupted"
    assert content.endswith(b"\n\n")
    assert len(router.asked) == 1


def test_a_whole_stream_passes_byte_by_byte(relay: Running) -> None:
    stream = EVENT * 3 + LAST + DONE
    router = Router([SSE + b"".join(chunk(stream[i : i + 7]) for i in range(0, len(stream), 7))])
    router.answers[0] += chunk(b"")
    relay.route(router)
    assert relay.ask() == (200, stream)


def test_it_ends_at_once_and_what_it_carries_goes_on(tmp_path: Path) -> None:
    held = threading.Event()

    class Slow(Router):
        def _answer(self, connection: socket.socket) -> None:
            with connection:
                connection.recv(1 << 16)
                connection.sendall(SSE + chunk(EVENT))
                held.wait(10)
                connection.sendall(chunk(LAST + DONE) + chunk(b""))

    with running(tmp_path) as relay:
        relay.route(Slow([]))
        answer = relay.begin()
        assert answer.read(len(EVENT)) == EVENT
        relay.process.send_signal(signal.SIGTERM)
        assert relay.process.wait(2) == 0
        held.set()
        assert answer.read() == LAST + DONE


def test_a_process_whose_parent_was_gone_before_it_began_takes_no_requests(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "relay.sock"))
        listener.listen()
        work = program.serve(listener, program.Relay(str(tmp_path / "route.json")), 1.0, gone.pid)
        asyncio.run(asyncio.wait_for(work, 3))
