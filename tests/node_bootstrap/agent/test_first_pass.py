"""The boot that is kept for the timeline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from node_bootstrap.agent.first_pass import FirstPass
from node_bootstrap.agent.preparer import Progress
from node_bootstrap.status import StepReport

ASSIGNMENT: Any = object()


def under_way(outcome):
    return Progress("role", steps=(StepReport("weights", outcome, 40.0, "2 files", 1012.0),))


def done(outcome):
    return replace(under_way(outcome), prepared=ASSIGNMENT)


def made(tmp_path, started=1010.0, boot="boot-1"):
    return FirstPass(tmp_path / "boot.json", boot, started)


def test_a_pass_that_is_not_done_is_not_kept(tmp_path):
    first = made(tmp_path)
    first.look(Progress("weights"))
    first.look(Progress("failed"))
    first.look(under_way("CHANGED"))
    assert first.kept is None


def test_the_first_pass_that_is_done_is_kept_over_restarts_of_the_agent(tmp_path):
    made(tmp_path).look(done("CHANGED"))
    again = made(tmp_path, started=9000.0)
    again.look(done("SKIPPED"))
    assert again.kept.agent_started_at == 1010.0
    assert again.kept.steps == (StepReport("weights", "CHANGED", 40.0, "", 1012.0),)


def test_another_boot_is_another_pass(tmp_path):
    made(tmp_path).look(done("CHANGED"))
    again = made(tmp_path, started=9000.0, boot="boot-2")
    assert again.kept is None
    again.look(done("SKIPPED"))
    assert again.kept.boot_id == "boot-2"
