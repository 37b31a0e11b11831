"""The account that a command speaks to is the one that `pulumi up` of the stack speaks to."""

from __future__ import annotations

import os

import pytest

from infra.cli.stack_session import session

CREDENTIALS = """\
[default]
aws_access_key_id = of-nobody
aws_secret_access_key = x
[work]
aws_access_key_id = of-work
aws_secret_access_key = x
"""


@pytest.fixture(autouse=True)
def stack(tmp_path, monkeypatch):
    """Writes the file of the stack `dev`; the shell's keys are of another account."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text(CREDENTIALS)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-shell")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("MOE_SERVING_STACKS", str(tmp_path))

    def write(*lines: str) -> None:
        text = "\n".join(f"  {line}" for line in lines)
        (tmp_path / "Pulumi.dev.yaml").write_text(f"config:\n{text}\n")

    return write


def key_id(region: str | None = None) -> str:
    return session("dev", region).get_credentials().access_key


def test_the_profile_of_the_stack_comes_before_the_shells_keys(stack):
    stack("aws:region: eu-west-1", "aws:profile: work")
    assert key_id() == "of-work"


def test_a_region_given_on_the_command_line_leaves_the_profile(stack):
    stack("aws:region: eu-west-1", "aws:profile: work")
    assert (key_id("us-east-2"), session("dev", "us-east-2").region_name) == (
        "of-work",
        "us-east-2",
    )


def test_without_a_profile_the_shells_keys_are_taken(stack):
    stack("aws:region: eu-west-1")
    assert (key_id(), session("dev").region_name) == ("of-the-shell", "eu-west-1")


def test_a_stack_without_a_file_takes_the_shells_keys_and_region(monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert (key_id(), session("dev").region_name) == ("of-the-shell", "us-west-2")


def test_a_profile_that_this_machine_has_not_is_named(stack, moe):
    stack("aws:region: eu-west-1", "aws:profile: home")
    shown = moe("leftovers", "--stack", "dev")
    assert shown.exit_code == 2
    assert "AWS: The config profile (home) could not be found" in shown.output
