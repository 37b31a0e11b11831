"""Commands on a node, and what an error tells of them."""

from __future__ import annotations

import pytest

from node_bootstrap.runner import CommandError, run


def test_the_output_of_a_command_comes_back():
    assert run(["echo", "a b"], timeout_seconds=5) == "a b\n"


def test_an_error_shows_command_exit_code_reason_and_output():
    with pytest.raises(CommandError) as raised:
        run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_seconds=5)
    assert str(raised.value) == (
        "Command: sh -c 'echo out; echo err >&2; exit 3'\n"
        "Exit code: 3\n"
        "Reason: ended with an error\n"
        "Stdout:\n    out\n"
        "Stderr:\n    err"
    )


def test_a_missing_program_is_named():
    with pytest.raises(CommandError, match=r"no-such-program(.|\n)*No such file"):
        run(["no-such-program"], timeout_seconds=5)


def test_a_command_that_takes_too_long_is_killed_and_its_output_kept():
    with pytest.raises(CommandError, match=r"not done after 0 s, killed") as raised:
        run(["sh", "-c", "echo begun; exec sleep 60"], timeout_seconds=0.3)
    assert raised.value.stdout == "begun\n"


def test_a_signal_is_told_as_such():
    with pytest.raises(CommandError, match=r"ended by signal 9"):
        run(["sh", "-c", "kill -9 $$"], timeout_seconds=5)


def test_nothing_is_expanded_by_a_shell():
    assert run(["echo", "$HOME;*"], timeout_seconds=5) == "$HOME;*\n"
