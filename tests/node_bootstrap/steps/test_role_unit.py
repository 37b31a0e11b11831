"""The role's unit and its environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_bootstrap.agent.role_process import read_environment, read_unit
from node_bootstrap.steps.base import StepError
from node_bootstrap.steps.role_unit import environment_file, quote_argument, unit

text = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r\0", exclude_categories=["Zl", "Zp", "Cc"])
)


def render(argv):
    return unit(argv, node="serve-0-0", environment=Path("/etc/moe/role.env"), stop_seconds=20)


def test_vllm_is_never_restarted_by_systemd_and_always_ended_as_a_whole():
    lines = render(["/opt/vllm/bin/python", "-m", "vllm"]).splitlines()
    assert "Restart=no" in lines
    assert "KillMode=control-group" in lines
    assert "TimeoutStopSec=20" in lines
    assert "User=moe-role" in lines
    assert 'ExecStart="/opt/vllm/bin/python" "-m" "vllm"' in lines


def test_systemd_expands_nothing_in_an_argument():
    assert quote_argument('100% of $HOME "\\') == '"100%% of $$HOME \\"\\\\"'


@given(st.lists(text, min_size=1))
def test_any_command_line_can_be_read_back(argv):
    assert read_unit(render(argv)) == (argv, 20.0)


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,9}", fullmatch=True), text))
def test_any_environment_can_be_read_back(env):
    assert read_environment(environment_file(env)) == env


def test_a_line_break_is_refused_without_showing_the_value():
    with pytest.raises(StepError, match="the value of VLLM_API_KEY has a line break") as raised:
        environment_file({"VLLM_API_KEY": "secret\n"})
    assert "secret" not in str(raised.value)
