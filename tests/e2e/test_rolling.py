"""Two groups behind a gateway take up new settings one after the other, under requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any, Self

import pytest
import yaml
from rehearsed import Rehearsed, own_network, running, write_stack
from test_gateway import Client

from node_bootstrap.gateway.layout import RELAY
from node_bootstrap.status import GatewayReport, GroupReport

pytestmark = pytest.mark.nightly
GROUPS = ("serve-0", "serve-1")
SECONDS_BETWEEN = 0.25
"""Four requests a second."""


class Rolled(Rehearsed):
    """The stack with two groups of one node each, its settings as they are changed."""

    def set(self, **options: Any) -> None:
        """Settings of both groups, as a user would edit them."""
        file = self.stacks / "Pulumi.rehearsal.yaml"
        data = yaml.safe_load(file.read_text())
        data["config"]["moe-serving:groups"]["serve"].update(options)
        file.write_text(yaml.safe_dump(data, sort_keys=False))

    def of(self, group: str) -> GroupReport:
        report = self.status(f"{group}-0").group
        assert report is not None
        return report

    def gateway(self) -> GatewayReport:
        report = self.status("gateway").gateway
        assert report is not None
        return report

    def sent_again(self) -> int:
        """How often the relay had to ask another group."""
        said = self.inside("gateway", "journalctl", "--unit", RELAY, "--output", "cat")
        return sum("; try " in line for line in said.splitlines())

    def routed(self) -> set[str]:
        return {group.name for group in self.gateway().groups if group.routed}


class Load:
    """Requests at their rate, whatever becomes of those before; every answer is kept."""

    def __init__(self, client: Client) -> None:
        self._client, self._end = client, threading.Event()
        self._senders: list[threading.Thread] = []
        self.answers: list[tuple[int, str, float]] = []
        self._clock = threading.Thread(target=self._send)

    def __enter__(self) -> Self:
        self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._clock.join()
        for sender in self._senders:
            sender.join()

    def _send(self) -> None:
        while not self._end.wait(SECONDS_BETWEEN):
            self._senders.append(threading.Thread(target=self._one))
            self._senders[-1].start()

    def _one(self) -> None:
        self.answers.append(self._client.complete())

    def failed(self) -> list[tuple[int, str, float]]:
        return [answer for answer in self.answers if answer[0] != 200]

    def texts(self) -> set[str]:
        bodies = [json.loads(text) for code, text, _ in self.answers if code == 200]
        return {body["choices"][0]["text"] for body in bodies}


@pytest.fixture(scope="module")
def rolled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rolled]:
    folder = tmp_path_factory.mktemp("rolling")
    # While the only group that is left stands still on a busy machine, requests are to wait.
    gateway = {"instance_type": "c7i.large", "wait": "180s", "waiting_requests": 1000}
    stacks = write_stack(
        folder / "stacks", network=own_network(7), nodes=1, replicas=2, gateway=gateway
    )
    stack = Rolled(folder / "home", stacks)
    with running(stack):
        yield stack


@pytest.fixture(scope="module")
def client(rolled: Rolled, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(rolled.outputs(), tmp_path_factory.mktemp("ca") / "ca.pem")


def test_new_settings_reach_both_groups_in_turn_and_no_request_fails(
    rolled: Rolled, client: Client, record_property: Any
) -> None:
    expected = json.loads(client.complete()[1])["choices"][0]["text"]
    before = {group: rolled.of(group) for group in GROUPS}
    rolled.set(max_model_len=384)
    with Load(client) as load:
        rolled.run("up")
    after = {group: rolled.of(group) for group in GROUPS}
    assert not load.failed(), load.failed()[:3]
    assert load.texts() == {expected}
    record_property("longest_wait_seconds", max(seconds for *_, seconds in load.answers))
    for group in GROUPS:
        assert after[group].revision != before[group].revision
        (last,) = [r for r in after[group].restarts if r.revision == after[group].revision]
        assert last.cause == "new revision"
    # Whoever is prepared first goes first.
    restarts = (after[group].restarts[-1] for group in GROUPS)
    first, second = sorted(restarts, key=lambda restart: restart.noticed_at)
    assert first.ready_at is not None
    assert second.noticed_at > first.ready_at, "the second began before the first had answered"
    assert "384" in client.ask("/models")[1]


def test_settings_that_cannot_start_take_one_group_down_and_up_says_why(
    rolled: Rolled, client: Client
) -> None:
    before = {group: rolled.of(group) for group in GROUPS}
    rolled.set(extra_args=["--tokenizer", "/nowhere"])
    done = rolled.run("up", check=False)
    assert done.returncode, done.stdout[-3000:]
    (other,) = rolled.routed()
    (down,) = set(GROUPS) - {other}
    assert f"{down} was started 3 times" in done.stdout
    assert "/nowhere" in done.stdout
    assert f"{other} goes on with what was there before" in done.stdout
    served, now = before[other], rolled.of(other)
    assert (now.revision, now.generation, now.phase) == (
        served.revision,
        served.generation,
        "ready",
    )
    assert client.complete()[0] == 200


def test_put_right_the_group_that_is_down_comes_back_and_the_other_is_left_alone(
    rolled: Rolled, client: Client
) -> None:
    (other,) = rolled.routed()
    served = rolled.of(other)
    rolled.set(extra_args=[])
    with Load(client) as load:
        # These settings were proven before, and still `up` waits until they have answered again.
        rolled.run("up")
        assert rolled.routed() == set(GROUPS)
    assert "last_failure" not in rolled.record()
    assert not load.failed(), load.failed()[:3]
    assert rolled.of(other).generation == served.generation


def test_nodes_of_another_type_come_group_by_group_and_no_request_fails(
    rolled: Rolled, client: Client, record_property: Any
) -> None:
    expected = json.loads(client.complete()[1])["choices"][0]["text"]
    before, again = rolled.instances(), rolled.sent_again()
    rolled.set(instance_type="m7i.large")
    with Load(client) as load:
        rolled.run("up")
    after = rolled.instances()
    assert not load.failed(), load.failed()[:3]
    assert load.texts() == {expected}
    assert rolled.sent_again() == again, "a group's nodes ended before it had answered"
    record_property("longest_wait_seconds", max(seconds for *_, seconds in load.answers))
    assert after["gateway"] == before["gateway"]
    assert after["serve-0-0"] != before["serve-0-0"]
    assert after["serve-1-0"] != before["serve-1-0"]
    first, second = rolled.of("serve-0").restarts[0], rolled.status("serve-1-0")
    assert first.ready_at is not None
    assert second.booted_at > first.ready_at, "the second was replaced before the first answered"
    assert rolled.routed() == set(GROUPS)
