"""When a node that becomes an image begins to clear itself; what goes is seen on a real node."""

from __future__ import annotations

import pytest

from node_bootstrap.agent import sealing
from node_bootstrap.agent.sealing import Sealing
from node_bootstrap.agent.store import StoreError
from node_bootstrap.places import Places


@pytest.fixture
def seen(monkeypatch):
    """What was told and run, in that order."""
    order: list[str] = []
    monkeypatch.setattr(sealing.runner, "run", lambda command, **_: order.append(command[0]))
    return order


def test_nothing_is_cleared_before_the_steps_are_done(tmp_path, seen):
    node = Sealing(Places(tmp_path), lambda: seen.append("told"))
    node.tick()
    assert seen == []


def test_it_is_told_once_and_then_a_unit_of_its_own_clears_the_node(tmp_path, seen):
    node = Sealing(Places(tmp_path), lambda: seen.append("told"))
    node.prepared(None)
    for _ in range(3):
        node.tick()
    assert seen == ["told", "systemd-run"]
    script = tmp_path / "run/moe-seal.sh"
    assert script.stat().st_mode & 0o777 == 0o700
    assert "systemctl poweroff" in script.read_text()


def test_a_node_that_can_not_tell_does_not_clear_itself(tmp_path, seen):
    refused = [StoreError("the bucket is gone")]

    def tell():
        if refused:
            raise refused.pop()
        seen.append("told")

    node = Sealing(Places(tmp_path), tell)
    node.prepared(None)
    node.tick()
    assert seen == []
    node.tick()
    assert seen == ["told", "systemd-run"]


def test_another_assignment_is_brought_about_before_anything_is_cleared(tmp_path, seen):
    node = Sealing(Places(tmp_path), lambda: seen.append("told"))
    node.prepared(None)
    node.assign(None)
    node.tick()
    assert seen == []
