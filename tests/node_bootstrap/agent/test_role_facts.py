"""What is read of a role's log while it runs."""

from __future__ import annotations

import pytest

from node_bootstrap.agent import role_facts
from node_bootstrap.agent.protocol import Pair

EXPERTS = "[EP Rank 0/1] Local/global number of experts: 4/4."


class Role:
    """A role whose log the test writes."""

    said = EXPERTS

    def log(self):
        return self.said


@pytest.fixture
def reader(tmp_path, monkeypatch):
    monkeypatch.setattr(role_facts, "READ_LOG_SECONDS", 0.0)
    monkeypatch.setattr(role_facts, "SIGNS_SECONDS", 0.0)
    made = role_facts.RoleReader(Role(), tmp_path / "facts.json")
    made.role = made._supervisor
    return made


def read(reader, text, generation=1):
    reader.role.said = text
    reader.read(Pair("r1", generation))
    return [sign.line for sign in reader.signs]


def test_signs_are_looked_for_when_all_else_is_said(reader):
    assert read(reader, EXPERTS) == []
    assert read(reader, "balancedness=0.2") == ["balancedness=0.2"]


def test_a_line_that_has_left_the_log_stays_until_another_of_its_kind(reader):
    read(reader, "balancedness=0.2")
    assert read(reader, "INFO fine") == ["balancedness=0.2"]
    assert read(reader, "balancedness=0.1\nbalancedness=0.3") == ["balancedness=0.3"]


def test_the_same_line_keeps_the_time_of_its_first_look(reader):
    read(reader, "balancedness=0.2")
    first = reader.signs
    read(reader, "balancedness=0.2\nINFO fine")
    assert reader.signs == first


def test_another_life_begins_without_signs(reader):
    read(reader, "balancedness=0.2")
    assert read(reader, "INFO fine", generation=2) == []


def test_a_long_line_is_cut(reader):
    assert len(read(reader, f"balancedness=0.2 {'x' * 900}")[0]) == 240
