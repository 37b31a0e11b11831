"""One group with an API on each of its nodes, which the gateway takes turns with."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from rehearsed import HEADLESS, NODES, PRIMARY, Rehearsed, own_network, running, write_stack
from test_gateway import Client

from rehearsal.machine import faults
from rehearsal.paths import Home

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    folder = tmp_path_factory.mktemp("apis")
    gateway = {"instance_type": "c7i.large", "policy": "round_robin"}
    stacks = write_stack(
        folder / "stacks", network=own_network(8), load_balancing="hybrid", gateway=gateway
    )
    stack = Rehearsed(folder / "home", stacks)
    with running(stack):
        yield stack


@pytest.fixture(scope="module")
def client(several: Rehearsed, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(several.outputs(), tmp_path_factory.mktemp("ca") / "ca.pem")


def answered(stack: Rehearsed, node: str) -> float:
    """Completions that the API of a node has counted."""
    read = (
        "import urllib.request as u; "
        "print(u.urlopen('http://127.0.0.1:8000/metrics').read().decode())"
    )
    metrics = stack.inside(node, "python3", "-c", read)
    lines = [line for line in metrics.splitlines() if line.startswith("vllm:request_success_total")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_both_nodes_apis_are_asked_and_both_answer(several: Rehearsed, client: Client) -> None:
    before = {node: answered(several, node) for node in NODES}
    texts = set()
    for _ in range(20):
        code, text, _ = client.complete()
        assert code == 200, text
        texts.add(json.loads(text)["choices"][0]["text"])
    assert len(texts) == 1
    # The agent's probe asks each once a few seconds; the rest came through the gateway.
    assert all(answered(several, node) >= before[node] + 8 for node in NODES)
    assert [probe.rank for probe in several.group().probes] == [0, 1]


@pytest.mark.drill
def test_a_killed_engine_of_either_node_is_one_fault_of_the_whole_group(
    several: Rehearsed, client: Client
) -> None:
    before = several.group().generation
    home = Home(several.root)
    faults.kill(home, several.instances()[HEADLESS], "VLLM::EngineCore")
    several.wait("the next generation", lambda: several.group().generation > before, 20)
    several.wait("ready again", lambda: several.group().phase == "ready", 240)
    several.wait("an answer", lambda: client.complete()[0] == 200, 60)
    assert several.status(PRIMARY).generation == several.status(HEADLESS).generation
