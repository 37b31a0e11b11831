"""When the status is written, and what of it is news."""

from __future__ import annotations

import time
from dataclasses import replace

from node_bootstrap import durable
from node_bootstrap.agent.report import Reporter, essence
from node_bootstrap.status import (
    EngineMetrics,
    GroupReport,
    MemberReport,
    ProbeReport,
    Sign,
    Status,
)

GROUP = GroupReport(
    "r1", 1, "ready", 0.0,
    members=(MemberReport("n1", "i", "b", "running", 1, heard_at=5.0),),
    probes=(ProbeReport(0, "x", 0.1, 5.0),),
)  # fmt: skip
STATUS = Status(1, "n0", "i", "b", updated_at=5.0, phase="role", group=GROUP)


def test_a_later_look_at_the_same_is_no_news():
    member = replace(GROUP.members[0], heard_at=6.0)
    probe = replace(GROUP.probes[0], seconds=0.2, at=6.0)
    later = replace(
        STATUS, updated_at=6.0, group=replace(GROUP, members=(member,), probes=(probe,))
    )
    assert essence(later) == essence(STATUS)
    assert essence(replace(STATUS, phase="failed")) != essence(STATUS)


def test_what_a_busy_engine_shows_waits_for_the_next_regular_report():
    told = EngineMetrics(5.0, {"vllm:num_requests_waiting": 9.0})
    shown = replace(STATUS, signs=(Sign("KV_EXHAUSTED", "KV cache is full", 5.0),), metrics=told)
    assert essence(shown) == essence(STATUS)


def test_changes_are_written_at_most_once_a_second_and_the_last_one_always(tmp_path):
    written = []
    reporter = Reporter(written.append, tmp_path / "status.json")
    began = time.monotonic()
    for generation in range(30):
        reporter.submit(replace(STATUS, generation=generation))
        time.sleep(0.05)
    reporter.submit(replace(STATUS, generation=99))
    took = time.monotonic() - began
    reporter.close(30)
    assert 2 <= len(written) <= took + 3
    assert written[-1].generation == 99
    assert durable.load(tmp_path / "status.json", Status).generation == 99


def test_a_bucket_that_refuses_does_not_end_the_reporter(tmp_path):
    written = []

    def put(status):
        if not written:
            written.append("refused")
            raise OSError("no route")
        written.append(status)

    reporter = Reporter(put, tmp_path / "status.json")
    reporter.submit(STATUS)
    time.sleep(0.2)
    reporter.submit(replace(STATUS, generation=2))
    reporter.close(5)
    assert written[-1].generation == 2
