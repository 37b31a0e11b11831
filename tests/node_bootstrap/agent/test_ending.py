"""The end of a node with a time to live, on a clock that the tests hold."""

from __future__ import annotations

import logging
import time

import pytest

from node_bootstrap import runner
from node_bootstrap.agent.ending import Ending, Lifetime, end_of, first_boot
from node_bootstrap.agent.identity import Identity
from node_bootstrap.agent.store import Store, StoreError
from node_bootstrap.leaving import Leaving
from node_bootstrap.ttl import Ttl

BOOT = 1000.0
TTL = Ttl(seconds=3600.0)


class Timer:
    """Remembers what systemd would be told."""

    def __init__(self):
        self.told: list[float | None] = []
        self.broken = False

    def arm(self, seconds: float) -> None:
        if self.broken:
            raise runner.CommandError(("systemd-run",), 1, "ended with an error")
        self.told.append(seconds)

    def disarm(self) -> None:
        self.told.append(None)


class Node:
    """A node's ending, its clock, and what the bucket says."""

    def __init__(self, folder):
        self.path = folder / "ending.json"
        self.now = BOOT + 10
        self.timer = Timer()
        self.said: float | None = None
        self.start()

    def start(self, instance_id="i-1", booted_at=BOOT):
        identity = Identity(instance_id, "boot", booted_at)
        self.ending = Ending(self.path, identity, self.timer, lambda: self.now)
        self.ending.ask(self.extension)

    def extension(self, key):
        assert key == "ttl.json"
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    def turn(self, ttl=TTL):
        self.ending._ttl = ttl
        self.ending.turn()
        return self.ending.ends_at


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def test_a_node_without_a_time_to_live_never_ends(node):
    assert node.turn(ttl=None) is None
    assert node.timer.told == []
    assert not node.path.exists()


def test_a_node_ends_its_time_to_live_after_its_boot(node):
    assert node.turn() == BOOT + 3600
    assert node.timer.told == [3590.0]


def test_the_timer_is_set_once_while_the_end_stays(node):
    node.turn()
    node.now += 100
    node.turn()
    assert node.timer.told == [3590.0]


def test_the_bucket_moves_the_end(node):
    node.turn()
    node.said = BOOT + 7200
    node.now += 100
    assert node.turn() == BOOT + 7200
    assert node.timer.told == [3590.0, 7090.0]


def test_the_bucket_can_not_make_it_end_before_its_time(node):
    node.said = BOOT + 20
    assert node.turn() == BOOT + 3600


def test_a_bucket_that_can_not_be_read_changes_nothing(node):
    node.said = BOOT + 7200
    node.turn()
    node.said = StoreError("no answer")
    assert node.turn() == BOOT + 7200
    assert len(node.timer.told) == 1


def test_a_restarted_agent_sets_the_same_end_again(node):
    node.said = BOOT + 7200
    node.turn()
    node.said, node.now = StoreError("no answer"), BOOT + 500
    node.start()
    assert node.turn() == BOOT + 7200
    assert node.timer.told[-1] == 6700.0


def test_a_reboot_does_not_begin_the_time_anew(node):
    node.turn()
    node.start(booted_at=BOOT + 3000)
    assert node.turn() == BOOT + 3600


def test_a_node_that_comes_up_after_its_end_ends_at_once(node):
    node.turn()
    node.now = BOOT + 9000
    node.start(booted_at=BOOT + 8990)
    node.turn()
    assert node.timer.told[-1] <= 0


def test_another_instance_with_this_disk_has_a_life_of_its_own(node):
    node.turn()
    node.start(instance_id="i-2", booted_at=BOOT + 3000)
    assert node.turn() == BOOT + 6600


def test_another_time_to_live_in_the_assignment_counts(node):
    node.turn()
    assert node.turn(ttl=Ttl(600.0)) == BOOT + 600
    assert node.turn(ttl=None) is None
    assert node.timer.told == [3590.0, 590.0, None]


def test_a_time_to_live_that_went_while_the_agent_was_dead_ends_nothing(node):
    node.turn()
    node.start()
    assert node.turn(ttl=None) is None
    assert node.timer.told[-1] is None


def test_a_restarted_agent_looks_even_where_no_time_to_live_is_left(node):
    node.turn()
    node.start()
    node.ending.assign(None)
    deadline = time.monotonic() + 5
    while node.timer.told[-1] is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    node.ending.close()
    assert node.timer.told[-1] is None


def test_a_timer_that_could_not_be_set_is_set_at_the_next_look(node):
    node.timer.broken = True
    node.turn()
    node.timer.broken = False
    node.turn()
    assert node.timer.told == [3590.0]


def test_it_is_said_shortly_before_and_again_after_a_new_end(node, caplog):
    caplog.set_level(logging.WARNING)
    said = []
    for now in (BOOT + 100, BOOT + 3010, BOOT + 3100, BOOT + 3550, BOOT + 3560):
        node.now = now
        node.turn()
        said.append(len(caplog.records))
    assert said == [0, 1, 1, 2, 2]
    node.said = BOOT + 7200
    node.turn()
    node.now = BOOT + 6700
    node.turn()
    assert len(caplog.records) == 3
    assert "`moe extend` moves that" in caplog.text


def test_the_later_of_both_ends_counts():
    assert end_of(Lifetime("i", 100.0, 50.0), Ttl(10.0)) == 110.0
    assert end_of(Lifetime("i", 100.0, 500.0), Ttl(10.0)) == 500.0


def test_the_first_boot_that_is_known_counts():
    again = Identity("i-1", "later", 900.0)
    assert first_boot(Lifetime("i-1", 100.0, 5.0), again) == Lifetime("i-1", 100.0, 5.0)


def test_the_time_to_live_is_no_new_revision(make_nodes, tmp_path, account):
    nodes = make_nodes(tmp_path, account)
    assert nodes.assign() == nodes.assign(ttl=TTL)


def test_the_status_tells_the_end(make_nodes, tmp_path, account):
    nodes = make_nodes(tmp_path, account)
    nodes.assign(ttl=Ttl(5000.0))
    try:
        for name in ("serve-0-0", "serve-0-1"):
            nodes.start(name)
        nodes.wait(lambda _: (status := nodes.status()) and status.ends_at)
        status = nodes.status()
        assert status.ends_at == pytest.approx(status.booted_at + 5000)
    finally:
        nodes.close()


@pytest.fixture
def store(account):
    return Store("moe-serving-test-123456789012", "serve-0-0", account.s3, account.ssm)


def test_a_bucket_without_an_extension_says_nothing(store):
    assert store.extension("none.json") is None


def test_an_extension_is_read(store, account):
    account.s3.put_object(Bucket=store.bucket, Key="t.json", Body=b'{"schema": 1, "until": 5e9}')
    assert store.extension("t.json") == 5e9


def test_what_the_gateway_is_to_let_go_of_is_read_where_it_was_said(store, account):
    assert store.leaving() is None
    body = b'{"schema": 1, "groups": {"serve-0": 7.0}, "until": 5e9}'
    account.s3.put_object(Bucket=store.bucket, Key="leaving.json", Body=body)
    assert store.leaving() == Leaving(1, {"serve-0": 7.0}, 5e9)


def test_an_extension_of_another_form_is_a_fault(store, account):
    account.s3.put_object(Bucket=store.bucket, Key="t.json", Body=b'{"until": "tomorrow"}')
    with pytest.raises(StoreError, match=r"t\.json"):
        store.extension("t.json")
