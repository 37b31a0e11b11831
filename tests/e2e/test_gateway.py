"""The gateway of a stack: what passes, what doesn't, and a router that is killed under load."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from rehearsed import MODEL, Rehearsed, write_stack

pytestmark = pytest.mark.e2e
ALL_PORTS = range(1, 65536)


class Client:
    """A client with the authority's certificate and a key, as the outputs name them."""

    def __init__(self, outputs: dict[str, Any], ca: Path) -> None:
        self.outputs = outputs
        ca.write_text(outputs["ca_certificate"])
        context = ssl.create_default_context(cafile=str(ca))
        self._open = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        ).open

    def ask(self, path: str, body: Any = None, key: str | None = "") -> tuple[int, str, float]:
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key or self.outputs['api_key']}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.outputs["endpoint"] + path, data, headers)
        began = time.monotonic()
        try:
            with self._open(request, timeout=70) as answer:
                return answer.status, answer.read().decode(), time.monotonic() - began
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), time.monotonic() - began
        except OSError as error:
            return 0, str(error), time.monotonic() - began

    def complete(self) -> tuple[int, str, float]:
        body = {"model": MODEL, "prompt": "Hello", "max_tokens": 8, "temperature": 0}
        return self.ask("/completions", body)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    folder = tmp_path_factory.mktemp("gateway")
    stacks = write_stack(folder / "stacks", network="10.52.0.0/16", nodes=1)
    file = stacks / "Pulumi.rehearsal.yaml"
    data = yaml.safe_load(file.read_text())
    data["config"]["moe-serving:gateway"] = {"enabled": True, "instance_type": "c7i.large"}
    file.write_text(yaml.safe_dump(data))
    stack = Rehearsed(folder / "home", stacks)
    try:
        stack.run("up")
        yield stack
    finally:
        stack.run("down")


@pytest.fixture(scope="module")
def client(gated: Rehearsed, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(gated.outputs(), tmp_path_factory.mktemp("ca") / "ca.pem")


def test_a_key_and_the_authority_of_the_outputs_are_all_that_a_client_needs(client: Client) -> None:
    status, text, _ = client.complete()
    assert status == 200, text
    assert MODEL in client.ask("/models")[1]


@pytest.mark.parametrize("key", [None, "sk-wrong"])
def test_without_a_known_key_it_is_401_in_the_form_of_openai(client: Client, key) -> None:
    status, text, _ = client.ask("/models", key=key)
    assert status == 401
    assert json.loads(text)["error"]["code"] == "invalid_api_key"


def test_other_paths_do_not_pass(client: Client) -> None:
    assert client.ask("/../metrics")[0] == 404
    assert client.ask("/load_lora_adapter", {})[0] == 404


def test_only_the_tls_port_answers_from_outside(client: Client, gated: Rehearsed) -> None:
    outputs = client.outputs
    gateway = outputs["endpoint"].split("/")[2]
    primary = outputs["groups"]["serve-0"]["primary_address"]
    assert open_ports(gateway, ALL_PORTS) == [443]
    assert open_ports(primary, (22, 8000, 9400, 13345)) == []


def open_ports(host: str, ports: Any) -> list[int]:
    def is_open(port: int) -> bool:
        with socket.socket() as probe:
            probe.settimeout(0.25)
            return probe.connect_ex((host, port)) == 0

    with ThreadPoolExecutor(500) as pool:
        return [port for port, found in zip(ports, pool.map(is_open, ports), strict=True) if found]


def test_a_killed_router_fails_no_later_request_and_is_back_in_seconds(
    client: Client, gated: Rehearsed
) -> None:
    expected = json.loads(client.complete()[1])["choices"][0]["text"]
    answers: list[tuple[int, str, float]] = []
    senders = []
    for turn in range(40):
        senders.append(threading.Thread(target=lambda: answers.append(client.complete())))
        senders[-1].start()
        time.sleep(0.25)
        if turn == 10:
            gated.inside("gateway", "systemctl", "kill", "-s", "KILL", "moe-router@a.service")
    for sender in senders:
        sender.join()
    good = [json.loads(text) for status, text, _ in answers if status == 200]
    assert {answer["choices"][0]["text"] for answer in good} == {expected}
    # Only what the dead router had begun may fail.
    assert len(answers) - len(good) <= 2, [a for a in answers if a[0] != 200]
    assert max(seconds for *_, seconds in answers) < 10


def test_the_name_of_the_key_is_in_the_access_log_and_the_key_is_nowhere(
    client: Client, gated: Rehearsed
) -> None:
    log = gated.inside("gateway", "journalctl", "--no-pager", "-o", "cat")
    assert '"X-Moe-Key":["default"]' in log
    assert client.outputs["api_key"] not in log
    assert client.outputs["api_key"] not in gated.inside("gateway", "ps", "axww", "-o", "args")
