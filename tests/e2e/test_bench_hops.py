"""What each hop of the gateway adds, without nodes: its programs in front of a stand-in engine."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import http.client
import json
import multiprocessing
import os
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_load import SHORT, Way, in_turn, load, per_second

from node_bootstrap import assignment as a
from node_bootstrap.gateway import layout, render
from rehearsal.image import rootfs, vllm

pytestmark = pytest.mark.bench

PROGRAMS = Path(render.__file__).parents[1] / "files"
FRONT, ROUTER, KEY = 18443, 18101, "sk-bench"
ENGINE_SECONDS, ENGINE_PLACES = 0.02, 16
"""It answers so many at once, each in so long, as an engine with `--max-num-seqs` does."""
TURNS, SENDERS, SECONDS = 300, 64, 6.0
"""More senders than the engine has places: it is never idle, so that latency is not counted."""
GENEROUS_MS = 25.0
AS_SYSTEMD = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(1024)
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-I", *sys.argv[2:]])
"""
"""Key check and relay take a socket that is open already."""


async def answer(
    places: asyncio.Semaphore, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Every completion after the same time, once there is a place, on a connection that is kept."""
    body = json.dumps({"choices": [{"index": 0, "text": " a b c", "finish_reason": "length"}]})
    content = body.encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            asked = (await reader.readuntil(b"\r\n\r\n")).lower()
            for line in asked.split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    await reader.readexactly(int(line.split(b":")[1]))
            if b"/v1/completions" in asked:
                async with places:
                    await asyncio.sleep(ENGINE_SECONDS)
            writer.write(head.encode() + b"\r\n\r\n" + content)
            await writer.drain()


def stand_in(listener: socket.socket) -> None:
    """The engine, in a process of its own: its work is not the senders'."""

    async def serve() -> None:
        places = asyncio.Semaphore(ENGINE_PLACES)
        server = await asyncio.start_server(functools.partial(answer, places), sock=listener)
        await server.serve_forever()

    asyncio.run(serve())


@pytest.fixture(scope="module")
def engine() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        context = multiprocessing.get_context("fork")
        process = context.Process(target=stand_in, args=[listener])
        process.start()
        yield listener.getsockname()[1]
        process.kill()
        process.join()


def write_files(folder: Path) -> None:
    """What the agent renders, with places of this test in it."""
    limits = a.GatewayLimits(16 << 20, 600.0, 60.0, 256, 600.0)
    tls = a.GatewayTls(("127.0.0.1",), "internal")
    gateway = a.Gateway(FRONT, (), (), (), tls, "", {}, limits)
    text = render.caddyfile(gateway)
    for real, here in (
        (layout.DESK_SOCKET, folder / "desk.sock"),
        (layout.RELAY_SOCKET, folder / "relay.sock"),
        ("/run/moe-caddy", folder),
        (layout.CADDY_STORAGE, folder),
        (str(layout.CADDY_METRICS_PORT), "12020"),
    ):
        text = text.replace(real, str(here))
    (folder / "Caddyfile").write_text(text)
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    keys = {"model": "m", "keys": [{"name": "default", "sha256": digest}]}
    (folder / "keys.json").write_text(json.dumps(keys))
    (folder / "route.json").write_text(
        json.dumps({"open": True, "upstream": f"127.0.0.1:{ROUTER}"})
    )


@pytest.fixture(scope="module")
def ways(engine: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Way]]:
    folder = tmp_path_factory.mktemp("hops")
    write_files(folder)
    python = [sys.executable, "-c", AS_SYSTEMD]
    desk = [*python, folder / "desk.sock", PROGRAMS / "desk.py", folder / "keys.json"]
    relay = [*python, folder / "relay.sock", PROGRAMS / "relay.py", folder / "route.json", "5"]
    router = [vllm.python(vllm.ensure()), "-m", "vllm_router.launch_router"]
    router += ["--host", "127.0.0.1", "--port", str(ROUTER), "--prometheus-port", "39001"]
    router += ["--policy", "round_robin", "--worker-startup-check-interval", "1"]
    caddy = [rootfs.ensure() / "usr/bin/caddy", "run", "--adapter", "caddyfile"]
    commands = [
        [*desk, folder / "route.json"],
        relay,
        [*router, "--worker-urls", f"http://127.0.0.1:{engine}"],
        [*caddy, "--config", folder / "Caddyfile"],
    ]
    env = {**os.environ, "OPENAI_API_KEY": "k", "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        running = [subprocess.Popen(c, env=env, stdout=log, stderr=log) for c in commands]
        try:
            authority = folder / "pki/authorities/local/root.crt"
            yield wait([("direct", engine), ("router", ROUTER)], authority)
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(30)


def wait(plain: list[tuple[str, int]], authority: Path) -> list[Way]:
    """The ways, once a completion came through the whole of it."""

    def front() -> http.client.HTTPConnection:
        trust = ssl.create_default_context(cafile=str(authority))
        return http.client.HTTPSConnection("127.0.0.1", FRONT, context=trust, timeout=30)

    made = [
        Way(name, lambda p=port: http.client.HTTPConnection("127.0.0.1", p, timeout=30), KEY)
        for name, port in plain
    ]
    made.append(Way("gateway", front, KEY))
    end = time.monotonic() + 90
    while True:
        try:
            in_turn(made, 1, SHORT)
        except (OSError, AssertionError, http.client.HTTPException):
            assert time.monotonic() < end, "the gateway's programs did not come up"
            time.sleep(0.5)
        else:
            return made


def test_what_router_and_gateway_add(ways: list[Way], capsys) -> None:
    took = in_turn(ways, TURNS, SHORT)
    middle = {name: 1000 * statistics.median(found) for name, found in took.items()}
    direct, _, whole = ways
    past, through = (per_second(way, SENDERS, SECONDS, SHORT) for way in (direct, whole))
    with capsys.disabled():
        print(f"\n{TURNS} requests each way, a stand-in of {1000 * ENGINE_SECONDS:g} ms; {load()}")
        for name, found in took.items():
            tenth = 1000 * statistics.quantiles(found, n=10)[-1]
            print(f"{name:8} p50 {middle[name]:6.2f} ms  p90 {tenth:6.2f} ms")
        print(f"{SENDERS} senders: {past:.0f}/s direct, {through:.0f}/s through the gateway")
    assert middle["gateway"] - middle["direct"] < GENEROUS_MS
