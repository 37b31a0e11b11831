"""Carries a request from the front to the router, and again where its group died before answering.

One request a connection, over a Unix socket that systemd holds. The body is read whole, so that it
can be sent again; a plain answer is read whole, so that half of one is never passed on. A stream is
passed on event by event; one that is cut ends with an error event. Standard library alone; the
agent puts this file on the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SYSTEMD_FIRST_FD = 3
HEAD_BYTES = 256 * 1024
BUFFERED_BYTES = 256 << 20
"""Of request bodies that one process holds; above it requests are told to come again."""
PROCESSES = 4
WAIT_STEP_SECONDS = 0.1
CONNECT_SECONDS = 2.0
PAUSES_SECONDS = (0.5, 6.0)
"""Before a request is sent again. By the second one, who died has been noticed and left, or the
route is shut until it is back: a request that kills engines doesn't go through all of them."""
AGAIN = (500, 502, 503, 504)
HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "expect", "te")
ENDED = "its engine was ended while it answered"
BLANK = b"\r\n\r\n"
DONE = b"data: [DONE]"
ABORTED = re.compile(rb'"finish_reason": ?"abort"')
"""An engine that is told to end answers what it has so far with this, and HTTP 200."""
FINISHED = re.compile(rb'"finish_reason": ?"|^data: ?\{"error"', re.MULTILINE)
"""Before its `[DONE]` a stream says why it is at its end; those of dying engines don't."""


@dataclass(frozen=True)
class Route:
    """Where requests go, as the agent wrote it. retries: how often one is sent again."""

    open: bool = False
    upstream: str = "127.0.0.1:1"
    wait_seconds: float = 60.0
    retries: int = 2


def read_route(path: str) -> Route:
    """What the file says now; a shut route while it can't be read."""
    known = {one.name for one in fields(Route)}
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes 20 ms to import
            said = json.load(file)
        return Route(**{name: value for name, value in said.items() if name in known})
    except (OSError, ValueError, TypeError):
        return Route()


class BrokeError(Exception):
    """No whole answer came. reached: whether a router had taken the request."""

    def __init__(self, why: str, *, reached: bool = True) -> None:
        super().__init__(why)
        self.reached = reached


@dataclass(frozen=True)
class Head:
    """First line and headers of a request or an answer."""

    line: str
    headers: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """A header's value; empty where it is missing."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    def bytes(self, *more: str) -> bytes:
        """For the wire, with the framing of this program's own in place of the other's."""
        kept = [f"{key}: {value}" for key, value in self.headers if key.lower() not in HOP]
        lines = [self.line, *kept, *more, "Connection: close", "", ""]
        return "\r\n".join(lines).encode("latin-1")

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.line.split(" ")[1])

    @property
    def streams(self) -> bool:
        """Whether an answer comes in events."""
        return self.get("content-type").startswith("text/event-stream")


async def read_head(reader: asyncio.StreamReader) -> Head:
    """The next head. BrokeError where none comes whole."""
    try:
        text = (await reader.readuntil(BLANK)).decode("latin-1")
        line, *rest = text.removesuffix("\r\n\r\n").split("\r\n")
        pairs = (entry.partition(":") for entry in rest)
        return Head(line, tuple((key, value.strip()) for key, _, value in pairs))
    except (OSError, EOFError, asyncio.LimitOverrunError) as error:
        raise BrokeError(f"no head came: {error!r}") from error


async def read_body(
    reader: asyncio.StreamReader, head: Head, *, answer: bool
) -> AsyncIterator[bytes]:
    """Parts of a body, as they come. BrokeError where it ends early."""
    try:
        if "chunked" in head.get("transfer-encoding").lower():
            while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
                yield (await reader.readexactly(size + 2))[:-2]
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
        elif length := head.get("content-length"):
            left = int(length)
            while left:
                part = await reader.read(min(left, 1 << 16))
                if not part:
                    raise BrokeError(f"it ended {left} bytes early")
                left -= len(part)
                yield part
        elif answer:
            while part := await reader.read(1 << 16):
                yield part
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        raise BrokeError(f"it broke off: {error!r}") from error


@dataclass
class Relay:
    """See the module. route: the agent's file."""

    route: str
    pauses: tuple[float, ...] = PAUSES_SECONDS
    held: int = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the front: one request."""
        body = b""
        try:
            head = await read_head(reader)
            if head.get("expect"):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            async for part in read_body(reader, head, answer=False):
                body += part
                self.held += len(part)
                if self.held > BUFFERED_BYTES:
                    writer.write(refusal(503, "The gateway holds too many large requests."))
                    return
            await self._unless_it_leaves(reader, Carried(self, head, body, writer))
            with contextlib.suppress(OSError):
                await writer.drain()
        except BrokeError:
            pass  # the front left before its request was whole
        finally:
            self.held -= len(body)
            writer.close()

    async def _unless_it_leaves(self, reader: asyncio.StreamReader, carried: Carried) -> None:
        work = asyncio.ensure_future(carried.carry())
        left = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
            if not work.done():
                work.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await work


@dataclass
class Carried:
    """One request under way. begun: something of an answer was passed on."""

    relay: Relay
    head: Head
    body: bytes
    front: asyncio.StreamWriter
    begun: bool = False

    async def carry(self) -> None:
        """Send it until an answer came, or as often and as long as may be."""
        failed, last = 0, b""
        end = time.monotonic() + read_route(self.relay.route).wait_seconds
        while True:
            late, route = time.monotonic() > end, read_route(self.relay.route)
            why = ""
            if route.open:
                try:
                    last = await self._once(route)
                    if not last:
                        return
                    why = last.partition(b"\r\n")[0].decode("latin-1")
                except BrokeError as error:
                    if error.reached:
                        why, last = str(error), refusal(502, "The group that was asked broke off.")
            failed += bool(why)
            if why:
                print(f"{self.head.line}: {why}; try {failed} of {route.retries + 1}", flush=True)
            if late or failed > route.retries:
                self.front.write(last or refusal(503, "No group can take requests now."))
                return
            pauses = self.relay.pauses
            await asyncio.sleep(pauses[min(failed, len(pauses)) - 1] if why else WAIT_STEP_SECONDS)

    async def _once(self, route: Route) -> bytes:
        """Send it; pass the answer on. Empty where that is done, else a failure, not passed on."""
        host, _, port = route.upstream.rpartition(":")
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(host, int(port), limit=HEAD_BYTES), CONNECT_SECONDS
            )
        except (OSError, TimeoutError) as error:
            raise BrokeError(f"router {route.upstream}: {error}", reached=False) from error
        try:
            has_body = bool(self.body) or self.head.line.startswith("POST")
            length = (f"Content-Length: {len(self.body)}",) if has_body else ()
            writer.write(self.head.bytes(*length) + self.body)
            with contextlib.suppress(OSError):
                await writer.drain()
            answer = await read_head(reader)
            if self.head.line.startswith("HEAD "):
                self.front.write(answer.bytes())
                return b""
            parts = read_body(reader, answer, answer=True)
            if answer.streams and answer.status == 200:
                return await self._stream(answer, parts)
            content = b"".join([part async for part in parts])
        finally:
            writer.close()
        if ABORTED.search(content):
            raise BrokeError(ENDED)
        whole = answer.bytes(f"Content-Length: {len(content)}") + content
        if answer.status in AGAIN:
            return whole
        self.front.write(whole)
        return b""

    async def _stream(self, answer: Head, parts: AsyncIterator[bytes]) -> bytes:
        """Pass whole events on; a failure where the first one is, or where none came."""
        pending = last = b""
        finished, why = False, "it ended without its last event"
        try:
            async for part in parts:
                pending += part
                cut = max(pending.rfind(b"\n\n") + 2, pending.rfind(BLANK) + 4)
                if cut < 4:
                    continue
                events, pending = pending[:cut], pending[cut:]
                if not self.begun and (failure := fault_in(events)):
                    return failure
                finished = finished or bool(FINISHED.search(events))
                if ABORTED.search(events) or (not finished and ends(events)):
                    why = ENDED
                    break
                await self._pass(answer, events)
                last = events
        except BrokeError as error:
            why = str(error)
        if not self.begun:
            raise BrokeError(why)
        if not ends(last):
            print(f"{self.head.line}: a stream was cut: {why}", flush=True)
            self.front.write(chunk(CUT))
        self.front.write(b"0\r\n\r\n")
        return b""

    async def _pass(self, answer: Head, events: bytes) -> None:
        if not self.begun:
            self.begun = True
            self.front.write(answer.bytes("Transfer-Encoding: chunked"))
        self.front.write(chunk(events))
        await self.front.drain()


def chunk(data: bytes) -> bytes:
    """Framed for the wire."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def ends(events: bytes) -> bool:
    """Whether the last of them is a stream's last."""
    return events.rstrip().endswith(DONE)


def document(message: str, code: str) -> bytes:
    """An error in the form of OpenAI's API."""
    error = {"message": message, "type": "server_error", "param": None, "code": code}
    return json.dumps({"error": error}).encode()


CUT = b"data: %b\n\n" % document("The answer was cut: the group that gave it ended.", "interrupted")


def refusal(status: int, message: str) -> bytes:
    """An answer of this program's own."""
    content = document(f"{message} Try again shortly.", "unavailable")
    headers = (("Content-Type", "application/json"), ("Retry-After", "5"))
    length = f"Content-Length: {len(content)}"
    return Head(f"HTTP/1.1 {status} Unavailable", headers).bytes(length) + content


def fault_in(events: bytes) -> bytes:
    """The answer to give for a stream whose first event is a fault of the server; empty if none."""
    first = events.partition(b"\n")[0].removeprefix(b"data:").strip()
    if not first.startswith(b'{"error"'):
        return b""
    try:
        error = json.loads(first)["error"]
        code = int(error.get("code") or 500)
    except (ValueError, TypeError, AttributeError):
        return b""
    if code not in AGAIN:
        return b""
    headers = (("Content-Type", "application/json"),)
    length = f"Content-Length: {len(first)}"
    return Head(f"HTTP/1.1 {code} Failed", headers).bytes(length) + first


async def serve(listener: socket.socket, relay: Relay, drain_seconds: float, parent: int) -> None:
    """Take connections until SIGTERM or the parent's end; what was begun may go on to its end.

    parent: process id of who forked this one, told by it: it may be gone before this one looks.
    """
    under_way: set[asyncio.Task[None]] = set()
    ending = asyncio.Event()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(relay.take(reader, writer))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    server = await asyncio.start_server(begin, sock=listener, limit=HEAD_BYTES)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    while not ending.is_set() and os.getppid() == parent:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), 1.0)
    server.close()
    if under_way:
        await asyncio.wait(under_way, timeout=drain_seconds)


def main(argv: list[str]) -> int:
    """`relay.py ROUTE DRAIN_SECONDS`, with the listening socket as systemd hands it over.

    Processes share the socket. On SIGTERM they end what they have begun, and this one ends at once,
    so that the next one is there before they are gone.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        print("relay.py takes its socket from systemd (moe-relay.socket)", file=sys.stderr)
        return 1
    listener = socket.socket(fileno=SYSTEMD_FIRST_FD)
    children: set[int] = set()
    parent = os.getpid()

    def end(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        while len(children) < min(PROCESSES, os.cpu_count() or 1):
            if not (child := os.fork()):
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                asyncio.run(serve(listener, Relay(argv[0]), float(argv[1]), parent))
                return 0
            children.add(child)
        children.discard(os.wait()[0])
        time.sleep(WAIT_STEP_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
