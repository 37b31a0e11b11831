"""Requests through the gateway and past it, from one process: what each hop adds."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rehearsed import MODEL, Rehearsed

from node_bootstrap.gateway.layout import DESK_SOCKET, ROUTER_PORTS
from rehearsal.machine import inside
from rehearsal.paths import Home

SHORT: dict[str, Any] = {"prompt": "Hello", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
Open = Callable[[], http.client.HTTPConnection]


@dataclass(frozen=True)
class Way:
    """How requests go. open: a connection, kept for all requests of one sender."""

    name: str
    open: Open
    key: str


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("desk", timeout=30)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def ways(stack: Rehearsed, stack_name: str, primary: str) -> list[Way]:
    """Straight to a group's primary, through the router alone, and through all of the gateway.

    The first two start in the gateway's network, as its own requests do.
    """
    outputs = stack.outputs()
    found = stack.client("ssm").get_parameter(
        Name=f"/moe-serving/{stack_name}/api-key", WithDecryption=True
    )
    key = found["Parameter"]["Value"]
    route = json.loads(stack.inside("gateway", "cat", "/etc/moe/gateway/route.json"))
    router = int(route["upstream"].rpartition(":")[2])
    assert router in ROUTER_PORTS.values()
    trust = ssl.create_default_context(cadata=outputs["ca_certificate"])
    front = outputs["endpoint"].split("/")[2]
    address = outputs["groups"][primary]["primary_address"]
    return [
        Way("direct", lambda: stack.connect_from("gateway", address, 8000), key),
        Way("router", lambda: stack.connect_from("gateway", "127.0.0.1", router), key),
        Way(
            "gateway",
            lambda: http.client.HTTPSConnection(front, context=trust, timeout=60),
            outputs["api_key"],
        ),
    ]


class Sender:
    """One client: a connection that is kept, and opened anew where the other side closed it."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self.connection = way.open()

    def complete(self, body: dict[str, Any]) -> float:
        """Seconds of one completion."""
        try:
            return self._complete(body)
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            # An engine closes what was idle for 5 s: on a busy machine that is the others' turns.
            self.connection = self.way.open()
            return self._complete(body)

    def _complete(self, body: dict[str, Any]) -> float:
        headers = {"Authorization": f"Bearer {self.way.key}", "Content-Type": "application/json"}
        content = json.dumps({"model": MODEL, **body})
        began = time.perf_counter()
        self.connection.request("POST", "/v1/completions", content, headers)
        answer = self.connection.getresponse()
        said = answer.read()
        took = time.perf_counter() - began
        assert answer.status == 200, said[:300]
        return took


def in_turn(which: Iterable[Way], rounds: int, body: dict[str, Any]) -> dict[str, list[float]]:
    """Seconds of every completion of each way; the ways take turns, so that load hits all alike."""
    senders = [Sender(way) for way in which]
    took: dict[str, list[float]] = {sender.way.name: [] for sender in senders}
    for turn in range(rounds + 5):
        for sender in senders:
            seconds = sender.complete(body)
            if turn >= 5:  # the first ones fill caches
                took[sender.way.name].append(seconds)
    return took


def per_second(way: Way, senders: int, seconds: float, body: dict[str, Any]) -> float:
    """Completions a second of so many senders at once, each a process with one connection."""
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()
    end = time.monotonic() + seconds

    def send() -> None:
        count, fault = 0, ""
        try:
            sender = Sender(way)
            while time.monotonic() < end:
                sender.complete(body)
                count += 1
        except (AssertionError, OSError, http.client.HTTPException) as error:
            fault = repr(error)
        said.put((count, fault))

    processes = [context.Process(target=send) for _ in range(senders)]
    began = time.monotonic()
    for process in processes:
        process.start()
    results = [said.get() for _ in processes]
    took = time.monotonic() - began
    for process in processes:
        process.join()
    assert not any(fault for _, fault in results), results
    return sum(count for count, _ in results) / took


def desk_seconds(stack: Rehearsed, key: str, rounds: int) -> float:
    """Seconds of the key check alone, as the front asks it: the median."""
    pid = inside.init_pid(Home(stack.root), stack.instances()["gateway"])
    connection = UnixConnection(f"/proc/{pid}/root{DESK_SOCKET}")
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        connection.request("GET", "/check", headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def load() -> str:
    """What else the machine does."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
