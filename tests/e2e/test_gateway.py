"""The gateway of a stack: what passes, what doesn't, and a router that is killed under load."""

from __future__ import annotations

import http.client
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
from rehearsed import MODEL, Rehearsed, own_network, running, write_stack

pytestmark = pytest.mark.nightly
ALL_PORTS = range(1, 65536)
GROUP_PORTS = (8000, 9400)
BODY_LIMIT_BYTES = 65536
GATEWAY = {"enabled": True, "instance_type": "c7i.large", "body_limit_bytes": BODY_LIMIT_BYTES}
KEYS = [
    {"name": "default"},
    {"name": "seldom", "requests_per_minute": 1},
    {"name": "elsewhere", "models": ["another"]},
    {"name": "over", "expires_at": "2026-01-01T00:00:00+00:00"},
]


class Client:
    """A client with the authority's certificate and a key, as the outputs name them."""

    def __init__(self, outputs: dict[str, Any], ca: Path) -> None:
        self.outputs = outputs
        ca.write_text(outputs["ca_certificate"])
        self.context = context = ssl.create_default_context(cafile=str(ca))
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
            with self._open(request, timeout=300) as answer:
                return answer.status, answer.read().decode(), time.monotonic() - began
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), time.monotonic() - began
        except OSError as error:
            return 0, str(error), time.monotonic() - began

    def complete(self, key: str | None = "") -> tuple[int, str, float]:
        body = {"model": MODEL, "prompt": "Hello", "max_tokens": 8, "temperature": 0}
        return self.ask("/completions", body, key)

    @property
    def address(self) -> str:
        """Of the endpoint, without its port."""
        return self.outputs["endpoint"].split("/")[2]

    def connect(self) -> http.client.HTTPSConnection:
        """A connection on which a request can be sent in any form."""
        return http.client.HTTPSConnection(self.address, timeout=60, context=self.context)


def stack_file(folder: Path, gateway: dict[str, Any]) -> Path:
    return write_stack(folder, network=own_network(10), nodes=1, gateway=gateway, keys=KEYS)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    folder = tmp_path_factory.mktemp("gateway")
    stacks = stack_file(folder / "stacks", GATEWAY)
    stack = Rehearsed(folder / "home", stacks)
    with running(stack):
        yield stack


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
    assert set(open_ports(client.address, ALL_PORTS)) <= {443}
    assert open_ports(client.address, [443], seconds=10) == [443]


def test_of_what_a_group_listens_on_the_world_gets_nothing_and_the_gateway_api_and_agent(
    client: Client, gated: Rehearsed
) -> None:
    primary = client.outputs["groups"]["serve-0"]["primary_address"]
    lines = gated.inside("serve-0-0", "ss", "-Hltn").splitlines()
    listening = sorted({int(line.split()[3].rpartition(":")[2]) for line in lines})
    assert set(listening) > set(GROUP_PORTS), "vLLM's own ports are there to be found"
    ports = [*listening, 22, 5600, 13345]
    assert open_ports(primary, ports, seconds=2) == []
    found = gated.in_node("gateway", lambda: open_ports(primary, ports, seconds=2))
    assert found == list(GROUP_PORTS)


def open_ports(host: str, ports: Any, *, seconds: float = 0.25) -> list[int]:
    def is_open(port: int) -> bool:
        with socket.socket() as probe:
            probe.settimeout(seconds)
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
            gated.inside("gateway", "systemctl", "kill", "-s", "KILL", "moe-router@*.service")
    for sender in senders:
        sender.join()
    good = [json.loads(text) for status, text, _ in answers if status == 200]
    assert {answer["choices"][0]["text"] for answer in good} == {expected}
    # Only what the dead router had begun may fail.
    assert len(answers) - len(good) <= 2, [a for a in answers if a[0] != 200]
    assert max(seconds for *_, seconds in answers) < 60


def test_http_2_is_offered(client: Client) -> None:
    context = ssl.create_default_context(cadata=client.outputs["ca_certificate"])
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((client.address, 443), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=client.address) as secured,
    ):
        assert secured.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize("chunked", [False, True], ids=["with-its-length", "in-chunks"])
def test_a_body_past_the_limit_is_413_in_the_form_of_openai(
    client: Client, *, chunked: bool
) -> None:
    text = json.dumps({"model": MODEL, "prompt": "x" * BODY_LIMIT_BYTES, "max_tokens": 1}).encode()
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {client.outputs['api_key']}",
    }
    connection = client.connect()
    body = iter([text[:1000], text[1000:]]) if chunked else text
    connection.request("POST", "/v1/completions", body, headers, encode_chunked=chunked)
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["error"]["code"] == "request_too_large"
    connection.close()


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("over", 401, "invalid_api_key"),
        ("elsewhere", 403, "model_not_allowed"),
        ("seldom", 429, "rate_limit_exceeded"),
    ],
)
def test_a_key_is_worth_what_its_settings_say(
    client: Client, name: str, status: int, code: str
) -> None:
    key = client.outputs["api_keys"][name]
    answers = [client.complete(key) for _ in range(2)]
    assert answers[1][0] == status
    assert json.loads(answers[1][1])["error"]["code"] == code


@pytest.mark.drill
def test_past_the_bound_a_request_is_told_when_to_come_again(
    client: Client, gated: Rehearsed, tmp_path: Path
) -> None:
    before, original = gated.instances(), gated.stacks
    gated.stacks = stack_file(tmp_path, GATEWAY | {"wait": "2s"})
    try:
        gated.run("up")
        gated.inside("gateway", "systemctl", "stop", "moe-node.service")
        gated.inside("gateway", "systemctl", "stop", "moe-router@*.service")
        connection = client.connect()
        body = json.dumps({"model": MODEL, "prompt": "Hello", "max_tokens": 1})
        key = {"Authorization": f"Bearer {client.outputs['api_key']}"}
        connection.request("POST", "/v1/completions", body, key)
        answer = connection.getresponse()
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert json.loads(answer.read())["error"]["code"] == "unavailable"
        connection.close()
    finally:
        gated.inside("gateway", "systemctl", "start", "moe-node.service")
        gated.stacks = original
        gated.run("up")
    gated.wait("it serves again", lambda: client.complete()[0] == 200, 120)
    assert gated.instances() == before


def test_the_name_of_the_key_is_in_the_access_log_and_the_key_is_nowhere(
    client: Client, gated: Rehearsed
) -> None:
    log = gated.inside("gateway", "journalctl", "--no-pager", "-o", "cat")
    assert '"X-Moe-Key":["default"]' in log
    secrets = {*client.outputs["api_keys"].values(), client.outputs["api_key"], *parameters(gated)}
    assert len(secrets) >= len(KEYS) + 2, "those of the clients, of vLLM and of the agents"
    told = {
        "log of the gateway": log,
        "log of the group": gated.inside("serve-0-0", "journalctl", "--no-pager", "-o", "cat"),
        "processes of the gateway": gated.inside("gateway", "ps", "axww", "-o", "args"),
        "processes of the group": gated.inside("serve-0-0", "ps", "axww", "-o", "args"),
        "outputs": gated.pulumi("stack", "output", "--json", "--stack", "rehearsal"),
        "state": gated.pulumi("stack", "export", "--stack", "rehearsal"),
        **documents(gated),
    }
    assert {"record.json", "nodes/gateway/status.json", "nodes/gateway/assignment.json"} <= set(
        told
    )
    shown = [where for where, text in told.items() if any(secret in text for secret in secrets)]
    assert not shown


def parameters(stack: Rehearsed) -> set[str]:
    """Values of all secrets that SSM holds for the stack."""
    pages = stack.client("ssm").get_paginator("get_parameters_by_path")
    path = {"Path": "/moe-serving/rehearsal", "Recursive": True, "WithDecryption": True}
    return {p["Value"] for page in pages.paginate(**path) for p in page["Parameters"]}


def documents(stack: Rehearsed) -> dict[str, str]:
    """Every JSON document in the stack's bucket."""
    s3, bucket = stack.client("s3"), stack.bucket
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    names = [o["Key"] for page in pages for o in page["Contents"] if o["Key"].endswith(".json")]
    return {n: s3.get_object(Bucket=bucket, Key=n)["Body"].read().decode() for n in names}
