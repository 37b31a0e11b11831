"""The key check over its real socket, asked as the front asks it."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from node_bootstrap.files import desk as program

MODEL = "tiny"


def entry(name: str, key: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), **more}


class OverSocket(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("desk", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(str(self._path))


@dataclass
class Asked:
    status: int
    headers: dict[str, str]
    document: dict[str, Any]


@dataclass
class Running:
    folder: Path
    upstream: str = ""

    def keys(self, *entries: dict[str, Any]) -> None:
        self._replace("keys.json", {"model": MODEL, "keys": list(entries)})

    def route(self, **fields: Any) -> None:
        self._replace("route.json", fields)

    def _replace(self, name: str, document: dict[str, Any]) -> None:
        new = self.folder / f"{name}.new"
        new.write_text(json.dumps(document))
        new.replace(self.folder / name)

    def ask(self, path: str = "/check", authorization: str | None = None, length: int = 0) -> Asked:
        connection = OverSocket(self.folder / "desk.sock")
        headers = {"X-Moe-Length": str(length)}
        if authorization is not None:
            headers["Authorization"] = authorization
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return Asked(answer.status, dict(answer.getheaders()), json.loads(content))


@pytest.fixture
def desk(tmp_path: Path):
    running = Running(tmp_path)
    running.keys(entry("alice", "sk-a"))
    router = socket.create_server(("127.0.0.1", 0))
    running.upstream = f"127.0.0.1:{router.getsockname()[1]}"
    running.route(open=True, upstream=running.upstream, body_bytes=1000)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "desk.sock"))
    listener.listen()
    made = program.Desk(
        program.Watched(str(tmp_path / "keys.json"), program.parse_keys, program.Keys()),
        program.Watched(str(tmp_path / "route.json"), program.parse_route, program.Route()),
    )
    loop = asyncio.new_event_loop()
    serving = loop.create_task(program.serve(listener, made))
    thread = threading.Thread(target=loop.run_until_complete, args=[asyncio.wait([serving])])
    thread.start()
    yield running
    loop.call_soon_threadsafe(serving.cancel)
    thread.join()
    loop.close()
    router.close()


def test_a_known_key_passes_with_its_name(desk: Running) -> None:
    asked = desk.ask(authorization="Bearer sk-a")
    assert asked.status == 200
    assert asked.headers["X-Moe-Key"] == "alice"


@pytest.mark.parametrize("shown", [None, "Bearer sk-b", "Basic sk-a", "Bearer ", "sk-a"])
def test_anything_else_is_401_in_the_form_of_openai(desk: Running, shown: str | None) -> None:
    asked = desk.ask(authorization=shown)
    assert asked.status == 401
    assert asked.document["error"]["code"] == "invalid_api_key"
    assert asked.document["error"]["type"] == "invalid_request_error"


def test_an_expired_key_is_refused(desk: Running) -> None:
    desk.keys(
        entry("old", "sk-old", expires_at="2001-01-01T00:00:00+00:00"),
        entry("new", "sk-new", expires_at="2999-01-01T00:00:00+00:00"),
    )
    assert desk.ask(authorization="Bearer sk-old").status == 401
    assert desk.ask(authorization="Bearer sk-new").status == 200


def test_a_key_for_other_models_is_403(desk: Running) -> None:
    desk.keys(entry("other", "sk-o", models=["another"]), entry("this", "sk-t", models=[MODEL]))
    assert desk.ask(authorization="Bearer sk-o").status == 403
    assert desk.ask(authorization="Bearer sk-t").status == 200


def test_more_requests_than_a_minute_allows_are_429_with_retry_after(desk: Running) -> None:
    desk.keys(entry("slow", "sk-s", requests_per_minute=2), entry("alice", "sk-a"))
    answers = [desk.ask(authorization="Bearer sk-s") for _ in range(3)]
    assert [a.status for a in answers] == [200, 200, 429]
    assert 0 < int(answers[2].headers["Retry-After"]) <= 61
    assert desk.ask(authorization="Bearer sk-a").status == 200


def test_a_replaced_file_of_keys_counts_at_once(desk: Running) -> None:
    desk.keys(entry("bob", "sk-b"))
    assert desk.ask(authorization="Bearer sk-a").status == 401
    assert desk.ask(authorization="Bearer sk-b").status == 200


def test_a_broken_file_of_keys_leaves_the_last_one_in_force(desk: Running) -> None:
    assert desk.ask(authorization="Bearer sk-a").status == 200
    (desk.folder / "keys.json").write_text("{")
    os.utime(desk.folder / "keys.json", (time.time(), time.time() + 5))
    assert desk.ask(authorization="Bearer sk-a").status == 200


def test_a_request_waits_until_a_router_takes_requests(desk: Running) -> None:
    desk.route(open=False, wait_seconds=5)
    started = time.monotonic()
    threading.Timer(0.5, lambda: desk.route(open=True, upstream=desk.upstream)).start()
    asked = desk.ask(authorization="Bearer sk-a")
    assert asked.status == 200
    assert 0.4 < time.monotonic() - started < 5


def test_a_router_that_does_not_listen_is_waited_for_and_then_503(desk: Running) -> None:
    desk.route(open=True, upstream="127.0.0.1:1", wait_seconds=0.3)
    asked = desk.ask(authorization="Bearer sk-a")
    assert asked.status == 503
    assert asked.headers["Retry-After"] == "5"
    assert asked.document["error"]["code"] == "unavailable"


def test_more_requests_than_may_wait_get_503_at_once(desk: Running) -> None:
    desk.route(open=False, wait_seconds=20, waiting=1)
    first = threading.Thread(target=desk.ask, kwargs={"authorization": "Bearer sk-a"})
    first.start()
    time.sleep(1)
    started = time.monotonic()
    assert desk.ask(authorization="Bearer sk-a").status == 503
    assert time.monotonic() - started < 10
    assert desk.ask("/health").status == 503
    desk.route(open=True, upstream=desk.upstream)
    first.join()


def test_a_request_above_the_limit_is_413(desk: Running) -> None:
    assert desk.ask(authorization="Bearer sk-a", length=1000).status == 200
    assert desk.ask(authorization="Bearer sk-a", length=1001).status == 413


def test_every_digest_is_compared_whichever_fits(monkeypatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr(
        program.hmac, "compare_digest", lambda a, b: bool(compared.append(a)) or a == b
    )
    keys = program.parse_keys(
        json.dumps({"model": MODEL, "keys": [entry(n, f"sk-{n}") for n in ("a", "b", "c")]})
    )
    found = program.find(keys, "Bearer sk-a")
    assert found is not None
    assert found.name == "a"
    assert len(compared) == 3
