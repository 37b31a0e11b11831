"""What systemd says of a unit, in words. (The unit on a real systemd: the e2e tests.)"""

from __future__ import annotations

import pytest

from node_bootstrap.agent.role import ending, parse_show, tail


def test_properties_are_read_with_whatever_they_hold():
    assert parse_show("ActiveState=active\nResult=\nx=a=b\n\n") == {
        "ActiveState": "active",
        "Result": "",
        "x": "a=b",
    }


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ({}, ""),
        ({"ExecMainCode": "1", "ExecMainStatus": "0", "Result": "success"}, "with exit code 0"),
        ({"ExecMainCode": "2", "ExecMainStatus": "9", "Result": "signal"}, "by signal 9"),
        (
            {"ExecMainCode": "2", "ExecMainStatus": "9", "Result": "oom-kill"},
            "by signal 9 (oom-kill)",
        ),
    ],
)
def test_an_ending_is_told_in_words(shown, words):
    assert ending(shown) == words


def test_the_tail_is_the_last_lines():
    assert tail("a\nb\nc\n", lines=2) == "b\nc"
