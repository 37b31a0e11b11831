"""An image of everything installed: made beside a stack that serves, then what the stack runs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from baking import MOE, Bake, bake, moe, name_image
from rehearsed import CHECKOUT, PRIMARY, PROMPTS, Answer, Rehearsed, own_network, write_stack

from node_bootstrap.status import Status

pytestmark = pytest.mark.nightly

NETWORK = own_network(14)


@dataclass
class Life:
    """What was seen on the way: a stack, an interrupted bake, a bake, the stack on its image."""

    stack: Rehearsed
    baked: Bake | None = None
    before: Status | None = None
    after: Status | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    owned: list[str] = field(default_factory=list)
    owned_after_interruption: list[str] = field(default_factory=list)
    interrupted: int = 0
    in_use: str = ""

    @property
    def bake(self) -> Bake:
        assert self.baked is not None
        return self.baked

    def interrupt(self) -> None:
        """^C while the builder boots."""
        command = [*MOE, "bake", "rehearsal"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(
            command, cwd=CHECKOUT, env={**self.stack.tool_env, "PYTHONUNBUFFERED": "1"}, **pipes
        ) as running:
            assert running.stdout is not None
            assert b"builder bake-serve-" in running.stdout.readline()
            time.sleep(1)
            running.send_signal(signal.SIGINT)
            running.communicate(timeout=120)
        self.interrupted = running.returncode

    def leftovers(self) -> list[str]:
        return sorted(moe(self.stack, "leftovers", "--stack", "rehearsal").stdout.splitlines())

    def disk(self, path: str) -> Path:
        """A path in the image, as it lies on this machine."""
        return self.stack.root / "images" / self.bake.image / "layer" / path

    def images(self) -> list[dict[str, Any]]:
        return self.stack.client("ec2").describe_images(Owners=["self"])["Images"]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """All of it once; what the tests look at on the disk goes with `down`."""
    folder = tmp_path_factory.mktemp("bake")
    stack = Rehearsed(folder / "home", write_stack(folder / "stacks", network=NETWORK, nodes=1))
    seen = Life(stack)
    try:
        stack.run("up")
        seen.before = stack.status(PRIMARY)
        seen.owned = seen.leftovers()
        seen.interrupt()
        seen.owned_after_interruption = seen.leftovers()
        seen.baked = bake(stack)
        name_image(stack.stacks / "Pulumi.rehearsal.yaml", seen.bake.image)
        stack.run("up")
        seen.after = stack.status(PRIMARY)
        seen.answers = {prompt: stack.complete(prompt) for prompt in PROMPTS}
        seen.in_use = moe(stack, "bake", "rehearsal", "--delete", seen.bake.image).stderr
        yield seen
    finally:
        stack.run("down")


def outcomes(status: Status | None) -> dict[str, str]:
    assert status is not None
    return {step.name: step.outcome for step in status.steps}


def test_an_interrupted_bake_leaves_nothing(life: Life) -> None:
    assert life.interrupted == 130
    assert life.owned_after_interruption == life.owned


def test_a_bake_shows_each_step_with_its_seconds(life: Life) -> None:
    assert re.search(r"  software   (NOCHANGE|CHANGED) +\d+\.\d s", life.bake.said)
    assert "taking it away" in life.bake.said


def test_a_finished_bake_leaves_the_image_alone(life: Life) -> None:
    (image,) = life.images()
    tags = {tag["Key"]: tag["Value"] for tag in image["Tags"]}
    assert image["ImageId"] == life.bake.image
    assert tags["moe-serving:baked-for"] == "rehearsal"
    assert tags["moe-serving:release"] == "0.32.0"
    assert "moe-serving:stack" not in tags
    assert image["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    found = life.stack.client("ec2").describe_instances(
        Filters=[{"Name": "instance-id", "Values": [life.bake.built_on]}]
    )
    assert found["Reservations"][0]["Instances"][0]["State"]["Name"] == "terminated"


def test_a_node_from_the_image_finds_its_software_and_serves(life: Life) -> None:
    assert life.after is not None
    assert outcomes(life.after)["software"] == "NOCHANGE"
    (instance,) = life.stack.client("ec2").describe_instances(InstanceIds=[life.after.instance_id])[
        "Reservations"
    ][0]["Instances"]
    assert instance["ImageId"] == life.bake.image
    assert {answer.code for answer in life.answers.values()} == {200}
    assert life.stack.record()["deployment"]["nodes"] is not None


def test_the_bootstrap_archive_of_the_image_is_not_fetched_again(life: Life) -> None:
    journal = life.stack.inside(PRIMARY, "journalctl", "-u", "moe-node", "--no-pager")
    assert "is in place" not in journal
    assert "assignment of revision" in journal


def test_a_node_from_the_image_is_another_than_the_builder(life: Life) -> None:
    assert life.before is not None
    assert life.after is not None
    assert life.after.instance_id not in (life.bake.built_on, life.before.instance_id)
    assert life.disk("etc/machine-id").read_text() == ""
    assert len(life.stack.inside(PRIMARY, "cat", "/etc/machine-id").strip()) == 32
    assert life.stack.inside(PRIMARY, "cat", "/var/lib/cloud/data/instance-id").strip() == (
        life.after.instance_id
    )
    boots = life.stack.inside(PRIMARY, "journalctl", "--list-boots", "--no-pager", "-o", "json")
    assert len(json.loads(boots)) == 1


def test_nothing_of_the_builder_and_no_secret_is_in_the_image(life: Life) -> None:
    state = {path.name for path in life.disk("var/lib/moe").iterdir()}
    assert state <= {"shiv"}
    for gone in ("etc/moe", "var/lib/cloud/instances", "etc/hostname"):
        assert not life.disk(gone).exists() or not any(life.disk(gone).iterdir())
    assert not list(life.disk("etc/systemd/system").rglob("moe-*"))
    parameters = life.stack.client("ssm").get_parameters_by_path(
        Path="/moe-serving/rehearsal/", Recursive=True, WithDecryption=True
    )["Parameters"]
    words = [p["Value"] for p in parameters] + [life.bake.built_on, "bake-serve-"]
    pattern = "|".join(map(re.escape, words))
    found = subprocess.run(
        [
            "grep",
            "--recursive",
            "--files-with-matches",
            "--extended-regexp",
            pattern,
            life.disk(""),
        ],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    assert found == []


def test_an_image_in_use_is_not_deleted_and_one_that_outlived_its_stack_is(life: Life) -> None:
    assert "is the image of" in life.in_use
    # Of the rehearsal: into the checkout's own file Pulumi would write its salt.
    file = life.stack.root / "pulumi/project/Pulumi.rehearsal.yaml"
    options = ("--yes", "--skip-preview", "--stack", "rehearsal", "--config-file", str(file))
    life.stack.pulumi("destroy", *options)
    assert life.bake.image in moe(life.stack, "bake", "rehearsal", "--list").stdout
    done = moe(life.stack, "bake", "rehearsal", "--delete", life.bake.image)
    assert done.returncode == 0, done.stderr
    assert life.images() == []
    own = life.stack.client("ec2").describe_snapshots(
        OwnerIds=["self"], Filters=[{"Name": "tag:moe-serving:baked-for", "Values": ["rehearsal"]}]
    )
    assert own["Snapshots"] == []
    assert not (life.stack.root / "images" / life.bake.image).exists()
