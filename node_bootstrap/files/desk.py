"""Answers the front's question whether a request may pass, and makes it wait for a router.

Caddy asks for each request of the API, over a Unix socket that systemd holds: it stays open while
this program is restarted. Standard library alone; the agent puts this file on the gateway.

Keys are known by their SHA-256 digests. Both files are read anew when they change, so that a key
comes, changes and goes without a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import socket
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

RETRY_SECONDS = 5
SYSTEMD_FIRST_FD = 3
PERIOD_SECONDS = 60.0
WAIT_STEP_SECONDS = 0.1
CONNECT_SECONDS = 1.0
BLANK = b"\r\n\r\n"
HEAD_BYTES = 2 << 20
"""Of a question: more than the front lets a request's headers have."""


@dataclass(frozen=True)
class Key:
    """One key, by its digest. expires_at: seconds since the epoch."""

    name: str
    sha256: str
    expires_at: float | None
    models: tuple[str, ...] | None
    requests_per_minute: int | None


@dataclass(frozen=True)
class Keys:
    """All keys, and the model that the stack serves."""

    model: str = ""
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Route:
    """upstream: address of the router that takes requests.

    open: whether one takes them now; else requests wait, `waiting` of them, for so many seconds.
    body_bytes: of a request, at most.
    """

    open: bool = False
    upstream: str = "127.0.0.1:1"
    wait_seconds: float = 60.0
    waiting: int = 256
    body_bytes: int = 16 << 20


@dataclass(frozen=True)
class Verdict:
    """The answer: `status` 200 lets the request pass. name: of the key, empty where unknown."""

    status: int
    name: str = ""
    message: str = ""
    kind: str = ""
    code: str = ""
    retry_after: int | None = None


def parse_keys(text: str) -> Keys:
    """Read the file of keys."""
    data = json.loads(text)
    return Keys(data["model"], tuple(_key(entry) for entry in data["keys"]))


def _key(entry: dict[str, Any]) -> Key:
    expires, models = entry.get("expires_at"), entry.get("models")
    return Key(
        name=entry["name"],
        sha256=entry["sha256"],
        expires_at=datetime.fromisoformat(expires).timestamp() if expires else None,
        models=tuple(models) if models is not None else None,
        requests_per_minute=entry.get("requests_per_minute"),
    )


def parse_route(text: str) -> Route:
    """Read the file of the route."""
    known = {one.name for one in fields(Route)}
    return Route(**{name: value for name, value in json.loads(text).items() if name in known})


def find(keys: Keys, authorization: str) -> Key | None:
    """The key that a request shows. Every digest is compared, whole, whichever fits."""
    scheme, _, shown = authorization.partition(" ")
    digest = hashlib.sha256(shown.strip().encode()).hexdigest()
    found = None
    for key in keys.keys:
        if hmac.compare_digest(key.sha256, digest):
            found = key
    return found if scheme.lower() == "bearer" else None


class Watched:
    """A file, parsed, and parsed again when it was replaced; the last good one while it is bad."""

    def __init__(self, path: str, parse: Any, empty: Any) -> None:
        self._path, self._parse = path, parse
        self._value, self._mark = empty, ()

    def value(self) -> Any:
        """What the file says now."""
        try:
            about = os.stat(self._path)  # noqa: PTH116 - pathlib takes 20 ms to import
            mark = (about.st_mtime_ns, about.st_ino, about.st_size)
            if mark == self._mark:
                return self._value
            with open(self._path, encoding="utf-8") as file:  # noqa: PTH123
                text = file.read()
        except OSError:
            return self._value  # being replaced; looked at again next time
        try:
            self._value = self._parse(text)
        except (ValueError, KeyError, TypeError) as error:
            print(f"{self._path}: {error}; the last one stays in force", file=sys.stderr)
        self._mark = mark
        return self._value


@dataclass
class Desk:
    """Keys, rates, and how many requests wait."""

    keys: Watched
    route: Watched
    clock: Any = time.time
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    _recent: dict[str, deque[float]] = field(default_factory=dict)
    _waiting: int = 0

    async def judge(self, authorization: str, length: int = 0) -> Verdict:
        """Whether a request with this header and length may pass.

        It waits where no router takes requests: here, before its body is read, so that nothing of
        it is lost and nothing is sent twice.
        """
        verdict = self._judge(authorization, length)
        if verdict.status == 200:
            verdict = await self._wait(verdict)
        self.counts[verdict.name, verdict.status] += 1
        return verdict

    def _judge(self, authorization: str, length: int) -> Verdict:
        keys: Keys = self.keys.value()
        now = self.clock()
        key = find(keys, authorization)
        if key is None:
            return _refused("Incorrect API key provided." if authorization else _NO_KEY)
        if key.expires_at is not None and now >= key.expires_at:
            return _refused("This API key has expired.", key.name)
        if key.models is not None and keys.model not in key.models:
            return Verdict(
                403,
                key.name,
                f"This API key may not use the model {keys.model}.",
                "permission_error",
                "model_not_allowed",
            )
        most = self.route.value().body_bytes
        if length > most:
            text = f"The request is larger than {most} bytes."
            return Verdict(413, key.name, text, "invalid_request_error", "request_too_large")
        return self._too_many(key, now) or Verdict(200, key.name)

    def _too_many(self, key: Key, now: float) -> Verdict | None:
        if key.requests_per_minute is None:
            return None
        recent = self._recent.setdefault(key.name, deque())
        while recent and recent[0] <= now - PERIOD_SECONDS:
            recent.popleft()
        if len(recent) < key.requests_per_minute:
            recent.append(now)
            return None
        after = max(1, round(recent[0] + PERIOD_SECONDS - now + 0.5))
        text = f"Rate limit reached: {key.requests_per_minute} requests per minute for this key."
        return Verdict(429, key.name, text, "rate_limit_error", "rate_limit_exceeded", after)

    async def _wait(self, passed: Verdict) -> Verdict:
        """The same once a router takes requests; a refusal where too many wait, or too long."""
        route: Route = self.route.value()
        if await self._open(route):
            return passed
        if self._waiting >= route.waiting:
            return _unavailable(passed.name, "too many requests wait already")
        self._waiting += 1
        try:
            end = time.monotonic() + route.wait_seconds
            while time.monotonic() < end:
                await asyncio.sleep(WAIT_STEP_SECONDS)
                if await self._open(self.route.value()):
                    return passed
            return _unavailable(passed.name, f"none came in {route.wait_seconds:g} s")
        finally:
            self._waiting -= 1

    async def _open(self, route: Route) -> bool:
        return route.open and await listens(route.upstream)

    def metrics(self) -> str:
        """Requests by key and verdict, as Prometheus reads it."""
        lines = [
            "# HELP moe_desk_requests_total Requests by key and status of the verdict",
            "# TYPE moe_desk_requests_total counter",
        ]
        lines += [
            f'moe_desk_requests_total{{key="{name}",status="{status}"}} {count}'
            for (name, status), count in sorted(self.counts.items())
        ]
        return "\n".join(lines) + "\n"


async def listens(address: str) -> bool:
    """Whether a router is there: one that was killed is back within seconds."""
    host, _, port = address.rpartition(":")
    try:
        connecting = asyncio.open_connection(host, int(port))
        _, writer = await asyncio.wait_for(connecting, CONNECT_SECONDS)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _unavailable(name: str, why: str) -> Verdict:
    text = f"No group can take requests now, and {why}. Try again shortly."
    return Verdict(503, name, text, "server_error", "unavailable", RETRY_SECONDS)


_NO_KEY = (
    "You didn't provide an API key. Send it in an Authorization header: Authorization: Bearer KEY."
)


def _refused(message: str, name: str = "") -> Verdict:
    return Verdict(401, name, message, "invalid_request_error", "invalid_api_key")


def error_document(verdict: Verdict) -> dict[str, Any]:
    """A refusal in the form of OpenAI's API."""
    return {
        "error": {
            "message": verdict.message,
            "type": verdict.kind,
            "param": None,
            "code": verdict.code,
        }
    }


@dataclass(frozen=True)
class Answer:
    """What goes back to the front."""

    status: int
    content: bytes
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    def bytes(self) -> bytes:
        """For the wire."""
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"Content-Type: {self.kind}",
            f"Content-Length: {len(self.content)}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join(lines).encode("latin-1") + BLANK + self.content


async def answer(desk: Desk, path: str, headers: dict[str, str]) -> Answer:
    """To one question: check a request, or tell how it is here."""
    if path == "/check":
        length = headers.get("x-moe-length", "")
        size = int(length) if length.isdecimal() else 0
        return told(await desk.judge(headers.get("authorization", ""), size))
    if path == "/health":
        ready = desk.route.value().open
        return Answer(200 if ready else 503, json.dumps({"ready": ready}).encode())
    if path == "/metrics":
        return Answer(200, desk.metrics().encode(), "text/plain; version=0.0.4")
    return Answer(404, json.dumps({"error": f"no such path: {path}"}).encode())


def told(verdict: Verdict) -> Answer:
    """A verdict as HTTP says it."""
    headers = [("X-Moe-Key", verdict.name)] if verdict.name else []
    if verdict.status == 200:
        return Answer(200, b"{}", headers=tuple(headers))
    if verdict.retry_after is not None:
        headers.append(("Retry-After", str(verdict.retry_after)))
    if verdict.status == 401:
        headers.append(("WWW-Authenticate", "Bearer"))
    content = json.dumps(error_document(verdict)).encode()
    return Answer(verdict.status, content, headers=tuple(headers))


async def converse(desk: Desk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection of the front, which asks many questions on it; none has a body."""
    with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
        while True:
            line, *rest = (await reader.readuntil(BLANK)).decode("latin-1").split("\r\n")
            headers = {n.lower(): v.strip() for n, _, v in (one.partition(":") for one in rest)}
            path = line.partition(" ")[2].partition(" ")[0]
            writer.write((await answer(desk, path, headers)).bytes())
            await writer.drain()
    writer.close()


async def serve(listener: socket.socket, desk: Desk) -> None:
    """Answer until it is cancelled, on a socket that is open already: systemd's."""

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await converse(desk, reader, writer)

    server = await asyncio.start_server(begin, sock=listener, limit=HEAD_BYTES)
    await server.serve_forever()


def main(argv: list[str]) -> int:
    """`desk.py KEYS ROUTE`, with the listening socket as systemd hands it over."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        print("desk.py takes its socket from systemd (moe-desk.socket)", file=sys.stderr)
        return 1
    desk = Desk(Watched(argv[0], parse_keys, Keys()), Watched(argv[1], parse_route, Route()))
    listener = socket.socket(fileno=SYSTEMD_FIRST_FD)
    print(f"desk open since {datetime.now(UTC).isoformat(timespec='seconds')}")
    asyncio.run(serve(listener, desk))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
