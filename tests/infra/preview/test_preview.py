"""What Pulumi's previews of a rehearsal's stack mean; data/ has them as the engine printed them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.preview import build
from infra.preview_words import lines

DATA = Path(__file__).parent / "data"
DONE = {"software": "CHANGED", "role": "CHANGED"}
RECORD = {
    "nodes": {
        "serve-0-0": {
            "boot_to_agent_seconds": 9.0,
            "step_seconds": {"software": 1.0, "role": 2.0},
            "step_outcomes": DONE,
        },
        "serve-0-1": {
            "boot_to_agent_seconds": 11.0,
            "step_seconds": {"software": 1.5},
            "step_outcomes": DONE,
        },
    },
    "groups": {
        "serve-0": {
            "restarts": [
                {"noticed_at": 100.0, "ready_at": 170.0},
                {"noticed_at": 200.0, "ready_at": 230.0},
                {"noticed_at": 300.0, "ready_at": None},
            ]
        }
    },
}


@pytest.fixture
def preview():
    def read(name: str, record=RECORD):
        return build(json.loads((DATA / f"{name}.json").read_text()), record)

    return read


@pytest.fixture
def words(preview):
    def read(name: str, record=RECORD) -> str:
        return "\n".join(lines(preview(name, record)))

    return read


def effects(shown) -> dict[str, str]:
    return {group.name: group.effect for group in shown.groups}


def test_an_update_that_changes_nothing(preview, words):
    assert effects(preview("nothing")) == {"serve-0": "goes on"}
    assert words("nothing") == "Nothing changes.\nNodes cost $0.18 an hour, on-demand."


def test_another_instance_type_replaces_the_nodes_and_costs_otherwise(preview, words):
    assert effects(preview("instance-type")) == {"serve-0": "replaced"}
    told = words("instance-type")
    assert "serve-0-0, serve-0-1 replaced (instance type c7i.large -> m7i.large)" in told
    assert "Nodes cost $0.18 an hour now, $0.20 after, on-demand." in told


def test_a_replaced_group_is_silent_for_boot_steps_and_start(preview, words):
    (group,) = preview("instance-type").groups
    assert group.silent_seconds == 11.0 + 3.0 + 30.0
    assert "about 44 s and the end of the old instances" in words("instance-type")


@pytest.mark.parametrize(
    "changes",
    [{"step_outcomes": {"software": "NOCHANGE"}}, {"boot_to_agent_seconds": 90000.0}],
    ids=["steps found all done", "agent restarted a day later"],
)
def test_boots_that_the_last_update_did_not_see_are_not_told_as_measured(preview, words, changes):
    node = {**RECORD["nodes"]["serve-0-0"], **changes}
    record = {**RECORD, "nodes": {**RECORD["nodes"], "serve-0-0": node}}
    (group,) = preview("instance-type", record).groups
    assert group.silent_seconds is None
    assert "which the last update did not measure, and 30 s of vLLM's start" in words(
        "instance-type", record
    )
    assert preview("option", record).groups[0].silent_seconds == 30.0


def test_an_option_restarts_in_place_for_the_seconds_of_the_last_start(preview, words):
    (group,) = preview("option").groups
    assert (group.effect, group.silent_seconds) == ("restarted", 30.0)
    told = words("option")
    assert "serve-0 restarts vLLM in place, no node is replaced" in told
    assert "about 30 s (its last start)" in told


def test_without_a_record_no_number_is_made_up(preview, words):
    (group,) = preview("option", record=None).groups
    assert group.silent_seconds is None
    assert "no start of it was measured" in words("option", record=None)


def test_a_further_node_restarts_its_group_and_costs_more(preview, words):
    (group,) = preview("third-node").groups
    assert group.effect == "restarted"
    assert [node.fate for node in group.nodes] == ["kept", "kept", "made"]
    assert "serve-0: serve-0-2 made" in words("third-node")
    assert "$0.18 an hour now, $0.27 after" in words("third-node")


def test_replicas_in_place_of_nodes(preview, words):
    assert effects(preview("replicas")) == {"serve-0": "restarted", "serve-1": "made"}
    told = words("replicas")
    assert "serve-0: serve-0-1 removed" in told
    assert "serve-1 is made: serve-1-0." in told
    assert "NetworkInterface" not in told, "an address goes with its node"


def test_a_node_that_is_gone_is_made_anew(preview, words):
    (group,) = preview("node-gone").groups
    assert {node.name: node.fate for node in group.nodes} == {
        "serve-0-0": "kept",
        "serve-0-1": "made",
    }
    assert "serve-0: serve-0-1 made: it won't answer for about 30 s" in words("node-gone")


def test_a_new_bootstrap_restarts_no_vllm(preview, words):
    data = json.loads((DATA / "bootstrap.json").read_text())
    kept = [s for s in data["steps"] if s["op"] != "create"]  # its node was gone, too
    shown = build({"steps": kept}, RECORD)
    assert effects(shown) == {"serve-0": "goes on"}
    told = "\n".join(lines(shown))
    assert "New bootstrap for serve-0-0, serve-0-1: agents restart, vLLM goes on." in told


def instance(name: str, op: str, content_before: str, content_after: str):
    base = "urn:pulumi:s::p::moe-serving:node:Node$"
    states = [{"inputs": {"content": c}} for c in (content_before, content_after)]
    return [
        {"op": op, "urn": f"{base}aws:ec2/instance:Instance::{name}"},
        {
            "op": "update",
            "urn": f"{base}aws:s3/bucketObjectv2:BucketObjectv2::{name}-assignment",
            "oldState": states[0],
            "newState": states[1],
        },
    ]


def told(group: str, revision: str, ttl: float | None = None) -> str:
    return json.dumps({"group": group, "revision": revision, "archive": {}, "ttl": ttl})


def test_replicas_that_restart_together_leave_nobody_to_answer():
    steps = [
        *instance("serve-0-0", "same", told("serve-0", "a"), told("serve-0", "b")),
        *instance("serve-1-0", "same", told("serve-1", "a"), told("serve-1", "b")),
    ]
    said = "\n".join(lines(build({"steps": steps}, None)))
    assert "All 2 groups stop at the same time: nobody answers meanwhile." in said


def turning(group: str, revision: str) -> str:
    role = group.partition("-")[0]
    said = {"group": group, "role": role, "revision": revision, "takes_turns": True}
    return json.dumps(said | {"archive": {}})


@pytest.mark.parametrize("op", ["same", "replace"])
def test_replicas_behind_a_gateway_change_one_after_the_other(op):
    steps = [
        *instance("serve-0-0", op, turning("serve-0", "a"), turning("serve-0", "b")),
        *instance("serve-1-0", op, turning("serve-1", "a"), turning("serve-1", "b")),
    ]
    said = "\n".join(lines(build({"steps": steps}, None)))
    assert "One after the other: serve-0, serve-1." in said
    assert "Service stays" in said
    assert "nobody answers" not in said


def test_pairs_change_over_and_a_group_alone_in_its_role_is_no_turn():
    names = ("decode-0", "decode-1", "prefill-0")
    steps = [
        step
        for name in names
        for step in instance(f"{name}-0", "same", turning(name, "a"), turning(name, "b"))
    ]
    said = "\n".join(lines(build({"steps": steps}, None)))
    assert "One after the other: decode-0, decode-1." in said
    assert "Nobody answers while prefill-0 is away." in said


def test_a_group_that_goes_on_answers_meanwhile():
    steps = [
        *instance("decode-0-0", "same", told("decode-0", "a"), told("decode-0", "b")),
        *instance("prefill-0-0", "same", told("prefill-0", "a"), told("prefill-0", "a", 60.0)),
    ]
    said = "\n".join(lines(build({"steps": steps}, None)))
    assert "1 of 2 groups go on answering." in said
    assert "prefill-0-0 told something that restarts nothing (such as its ttl)." in said


def test_a_parameter_that_is_replaced_is_named():
    urn = "urn:pulumi:s::p::moe-serving:storage:Storage$aws:ssm/parameter:Parameter::api-key"
    said = "\n".join(lines(build({"steps": [{"op": "replace", "urn": urn}]}, None)))
    assert "Replaced or deleted beside the nodes: Parameter api-key." in said


def test_both_steps_of_a_replacement_are_one():
    base = "urn:pulumi:s::p::moe-serving:node:Node$aws:ec2/instance:Instance::gateway"
    steps = [{"op": "create-replacement", "urn": base}, {"op": "delete-replaced", "urn": base}]
    (group,) = build({"steps": steps}, None).groups
    assert (group.name, group.effect) == ("gateway", "replaced")


TOLD = {
    "venv": {"software": {"runtime": "venv"}, "group": "serve-0"},
    "container": {"software": {"runtime": "container"}, "group": "serve-0"},
}


def becoming(before: tuple[str, str], after: tuple[str, str], *, disk_after: int = 30):
    """The preview of a node that is replaced. before, after: instance type and runtime."""
    parent = "urn:pulumi:dev::moe-serving::moe-serving:node:Node$"

    def step(kind: str, name: str, op: str, old: dict, new: dict) -> dict:
        states = {"oldState": {"inputs": old}, "newState": {"inputs": new}}
        return {"op": op, "urn": f"{parent}{kind}::{name}", **states}

    def template(instance_type: str, gib: int) -> dict:
        disks = [{"ebs": {"volumeSize": gib}}]
        return {"instanceType": instance_type, "imageId": "ami-1", "blockDeviceMappings": disks}

    name, told = "serve-0-0", [{"content": json.dumps(TOLD[r])} for _, r in (before, after)]
    launch = (template(before[0], 30), template(after[0], disk_after))
    steps = [
        step("aws:ec2/instance:Instance", name, "replace", {}, {}),
        step("aws:ec2/launchTemplate:LaunchTemplate", name, "update", *launch),
        step("aws:s3/bucketObjectv2:BucketObjectv2", f"{name}-assignment", "update", *told),
    ]
    return "\n".join(lines(build({"steps": steps}, None)))


KEEPS = "serve-0-0: image and root volume stay what they were for"
CPU, VENV, CONTAINER = ("c7i.large", "venv"), ("p5.48xlarge", "venv"), ("p5.48xlarge", "container")


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (CPU, CONTAINER, "nodes without GPUs"),
        (VENV, CONTAINER, "GPU nodes with a venv"),
        (CONTAINER, CPU, "GPU nodes with a container"),
    ],
)
def test_a_node_of_another_kind_keeps_its_image_and_the_preview_says_so(before, after, kind):
    assert f"{KEEPS} {kind}" in becoming(before, after)


def test_a_node_of_the_same_kind_keeps_its_image_and_needs_no_word():
    assert KEEPS not in becoming(CPU, ("m7i.large", "venv"))


def test_an_image_that_is_named_comes_with_its_root_volume():
    assert KEEPS not in becoming(CPU, CONTAINER, disk_after=300)
