"""Stacks of earlier versions under today's program: CHANGELOG.md names all that is replaced."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rehearsed import CHECKOUT, Rehearsed

from rehearsal import engine
from rehearsal.driver import plugin, stackfile
from rehearsal.driver.pulumi import Pulumi
from rehearsal.image import model
from rehearsal.paths import Home

pytestmark = pytest.mark.e2e

STATES = sorted((CHECKOUT / "tests/recorded_states").glob("*/*.json"))
CONTENT_ADDRESSED = ("archive",)
"""Objects whose key is the digest of their content: a new one beside the old is no loss."""
ANNOUNCED = re.compile(
    r"^\s*Replaces `(?P<type>[^`]+)` of stacks of (?P<version>\S+):", re.MULTILINE
)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    """A rehearsal whose account holds nothing."""
    model.ensure(CHECKOUT / "build/models/tiny-qwen3-moe")
    rehearsed = Rehearsed(tmp_path_factory.mktemp("recorded") / "home", CHECKOUT)
    try:
        rehearsed.run("account-start")
        plugin.use("ours", Home(rehearsed.root))
        yield rehearsed
    finally:
        rehearsed.run("account-stop")


def imported(rehearsed: Rehearsed, state: Path) -> Pulumi:
    """The recorded stack in the rehearsal's backend, with the stack file of its time."""
    program = engine.ensure().pulumi
    pulumi = Pulumi(program, state.stem, CHECKOUT, Home(rehearsed.root), rehearsed.tool_env)
    stackfile.write_copy(stackfile.read(state.parent, state.stem), pulumi.config_file)
    pulumi.select()
    scratch = pulumi.config_file.parent
    salt = yaml.safe_load(pulumi.config_file.read_text())["encryptionsalt"]
    exported = json.loads(state.read_text())
    # Recorded secrets are plain; the import encrypts them with the provider that the file names.
    exported["deployment"]["secrets_providers"] = {"type": "passphrase", "state": {"salt": salt}}
    (scratch / "import.json").write_text(json.dumps(exported))
    pulumi.ask("stack", "import", "--stack", state.stem, "--file", "import.json", folder=scratch)
    return pulumi


def steps(pulumi: Pulumi) -> list[dict[str, Any]]:
    said = pulumi.ask(
        *("preview", "--json", "--stack", pulumi.stack, "--config-file", str(pulumi.config_file))
    )
    return json.loads(said)["steps"]


def announced(version: str) -> set[str]:
    changes = (CHECKOUT / "CHANGELOG.md").read_text()
    return {m["type"] for m in ANNOUNCED.finditer(changes) if m["version"].rstrip(":") == version}


def lost(found: list[dict[str, Any]]) -> dict[str, str]:
    """URN -> operation, of every resource that would not live on."""
    return {
        step["urn"]: step["op"]
        for step in found
        if step["op"] in ("replace", "create-replacement", "delete-replaced", "delete")
        and step["urn"].rpartition("::")[2] not in CONTENT_ADDRESSED
    }


@pytest.mark.parametrize("state", STATES, ids=[f"{s.parent.name}-{s.stem}" for s in STATES])
def test_a_stack_of_an_earlier_version_keeps_its_resources(empty: Rehearsed, state: Path) -> None:
    pulumi = imported(empty, state)
    found = steps(pulumi)
    assert any(step["op"] == "same" for step in found)
    allowed = announced(state.parent.name)
    unannounced = {
        urn: op
        for urn, op in lost(found).items()
        if urn.split("::")[2].rpartition("$")[2] not in allowed
    }
    assert not unannounced


def test_a_change_that_replaces_a_node_is_seen(empty: Rehearsed, tmp_path: Path) -> None:
    state = next(s for s in STATES if s.stem == "rehearsal")
    pulumi = imported(empty, state)
    text = pulumi.config_file.read_text().replace("c7i.large", "m7i.large")
    pulumi.config_file.write_text(text)
    assert any("aws:ec2/instance:Instance" in urn for urn in lost(steps(pulumi)))
