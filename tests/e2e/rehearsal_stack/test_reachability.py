"""Who may reach which port, tried by connecting: the table is reachability.toml."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from neighbours import neighbours
from rehearsed import NODES, Rehearsed

from rehearsal.machine import faults
from rehearsal.paths import Home

pytestmark = pytest.mark.e2e

TABLE = tomllib.loads(Path(__file__).with_name("reachability.toml").read_text())
PLACES: list[str] = TABLE["places"]
PORTS: list[dict[str, Any]] = TABLE["port"]
CASES = [(place, row) for row in PORTS for place in PLACES if place != row["to"]]
LISTENING_SECONDS = 90

CONNECT = """
import errno, json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def connect(target):
    try:
        socket.create_connection(tuple(target), timeout=4).close()
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    return "open"

targets = json.loads(sys.argv[1])
with ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps(list(pool.map(connect, targets))))
"""
LISTEN = """
import socket, sys
with socket.create_server(("", int(sys.argv[1]))) as server:
    while True:
        server.accept()[0].close()
"""


@dataclass
class Field:
    """All places, and how to do something at one of them. ids: instances; addresses: of them."""

    stack: Rehearsed
    ids: dict[str, str]
    addresses: dict[str, str]

    def run(self, place: str, *argv: str) -> str:
        if place == "outside":
            return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        done = faults.run(Home(self.stack.root), self.ids[place], argv)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def connect(self, place: str, targets: list[tuple[str, int]]) -> list[str]:
        """`open`, or the name of the errno, for each (place, port), all at once."""
        python = sys.executable if place == "outside" else "/usr/bin/python3"
        wanted = json.dumps([(self.addresses[to], port) for to, port in targets])
        return json.loads(self.run(place, python, "-c", CONNECT, wanted))

    def listen(self, place: str, ports: list[int]) -> None:
        """Make something listen on each port; where something does already, it stays."""
        for port in ports:
            unit = (f"--unit=listen-{port}", "--collect", "--quiet", "--no-block")
            script = ("/usr/bin/python3", "-c", LISTEN, str(port))
            self.run(place, "systemd-run", *unit, *script)
        deadline = time.monotonic() + LISTENING_SECONDS
        while time.monotonic() < deadline:
            if set(self.connect(place, [(place, port) for port in ports])) == {"open"}:
                return
            time.sleep(0.5)
        pytest.fail(f"nothing listens on some of {ports} of {place}")

    def hush(self, place: str, ports: list[int]) -> None:
        units = [f"listen-{port}.service" for port in ports]
        faults.run(Home(self.stack.root), self.ids[place], ["systemctl", "stop", *units])


@pytest.fixture(scope="module")
def outcomes(stack: Rehearsed) -> Iterator[dict[tuple[str, str, int], str]]:
    """(from, to, port) -> what a connection came to; something listens on every port."""
    stack.wait_until_ready()
    listening = {to: [r["port"] for r in PORTS if r["to"] == to] for to in PLACES}
    listening = {to: ports for to, ports in listening.items() if ports}
    with neighbours(stack) as others:
        ids = {**stack.instances(), **others}
        found = stack.client("ec2").describe_instances(InstanceIds=list(ids.values()))
        address = {
            i["InstanceId"]: i["PrivateIpAddress"]
            for r in found["Reservations"]
            for i in r["Instances"]
        }
        field = Field(stack, ids, {name: address[id_] for name, id_ in ids.items()})
        try:
            for place, ports in listening.items():
                field.listen(place, ports)
            results = {}
            for place in PLACES:
                targets = [(r["to"], r["port"]) for r in PORTS if r["to"] != place]
                said = field.connect(place, targets)
                results |= {(place, *t): how for t, how in zip(targets, said, strict=True)}
            yield results
        finally:
            for place in NODES:
                field.hush(place, listening[place])


@pytest.mark.parametrize(
    ("place", "row"), CASES, ids=[f"{place}-to-{row['to']}-{row['port']}" for place, row in CASES]
)
def test_a_port_is_open_to_whom_the_table_names_and_silent_to_all_others(
    outcomes: dict[tuple[str, str, int], str], place: str, row: dict[str, Any]
) -> None:
    outcome = outcomes[place, row["to"], row["port"]]
    if place in row["open_to"]:
        assert outcome == "open"
    else:
        # A refused connection would have reached the node: what holds it back must be the network.
        assert outcome in ("TimeoutError", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH")
