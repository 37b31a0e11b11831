"""What the builder is told, of which type it is, and what it may do."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from fnmatch import fnmatchcase

import pytest

from infra.bake import builder
from infra.bake.builder import Build, Site, builder_type, digest, group_of, release
from infra.bake.site import BakeError, chosen
from infra.names import STACK_TAG
from infra.resources import policies
from node_bootstrap.assignment import Assignment
from node_bootstrap.jsondata import from_json, to_json

BUCKET = "arn:aws:s3:::moe-serving-x-123456789012"
ROOT = {"VolumeSize": 300, "VolumeType": "gp3", "Throughput": 750}


def build_of(told, instance_type="p5en.48xlarge") -> Build:
    where = Site(told, instance_type, "ami-1", "/dev/sda1", ROOT, "subnet-1", "sg-1")
    return Build(where, "bake-serve-a1b2c3", builder_type(instance_type), 5400)


@pytest.fixture
def told(told_of):
    return (
        told_of("wide-ep")["decode-0-0"]
        if "decode-0-0" in told_of("wide-ep")
        else next(iter(told_of("wide-ep").values()))
    )


def test_the_builder_is_told_the_software_of_the_node_and_none_of_its_secrets(told):
    made = builder.assignment(build_of(told))
    assert (made.target, made.node) == ("image", "bake-serve-a1b2c3")
    assert (made.software, made.archive, made.backend) == (
        told.software,
        told.archive,
        told.backend,
    )
    assert made.hardware.gpu_name == told.hardware.gpu_name
    assert "/moe-serving/" not in to_json(made).replace(made.bucket, "")
    assert (made.members, made.argv, made.secret_env, made.weights.fetch) == ((), (), {}, "nothing")


def test_a_builder_ends_by_itself_if_nobody_waits_for_it_any_more(told):
    made = builder.assignment(build_of(told))
    assert made.ttl is not None
    assert made.ttl.seconds == 5400


@pytest.mark.parametrize(
    ("instance_type", "built_on"),
    [
        ("p5en.48xlarge", "m7i.4xlarge"),
        ("p6-b200.48xlarge", "m7i.4xlarge"),
        ("c7i.large", "c7i.large"),
    ],
)
def test_software_for_gpus_is_installed_where_there_are_none(instance_type, built_on):
    assert builder_type(instance_type) == built_on


def test_the_launch_is_a_nodes_but_for_its_end(told):
    request = builder.launch(build_of(told), "arn:aws:iam::1:instance-profile/p")
    assert request["InstanceInitiatedShutdownBehavior"] == "stop"
    assert request["MetadataOptions"]["HttpTokens"] == "required"
    (disk,) = request["BlockDeviceMappings"]
    assert disk["Ebs"] == {**ROOT, "Encrypted": True, "DeleteOnTermination": True}
    assert request["UserData"].startswith("#cloud-config")
    assert "moe-unassigned.timer" in request["UserData"]


def test_the_image_says_what_is_in_it_and_is_no_part_of_the_stack(told):
    every = builder.image_tags(build_of(told))
    assert every["moe-serving:release"] == release(told.software) == "0.33.0"
    assert every["moe-serving:software"] == digest(told.software)
    assert every["moe-serving:base-image"] == "ami-1"
    assert STACK_TAG not in every


def test_other_software_is_another_digest(told):
    other = dataclasses.replace(told.software, image="vllm/vllm-openai:v9")
    assert digest(other) != digest(told.software)


def test_the_name_of_an_image_fits_ec2_and_is_another_for_each_builder(told):
    build = build_of(dataclasses.replace(told, stack="s" * 100))
    moment = dt.datetime(2026, 11, 25, 12, 0, 0, tzinfo=dt.UTC)
    others = [dataclasses.replace(build, name=f"bake-decode-{token}") for token in ("aa", "bb")]
    names = {builder.image_name(other, moment) for other in others}
    assert len(names) == 2
    assert all(3 <= len(name) <= 128 and "20261125" in name for name in names)


def test_the_only_group_is_meant_where_none_is_named(told_of):
    told = told_of("rehearsal")
    assert chosen("rehearsal", None, told.values()).node == "serve-0-0"


def test_of_several_groups_one_must_be_named(told_of):
    told = told_of("rehearsal-pd").values()
    with pytest.raises(BakeError, match="several groups: say which with --group"):
        chosen("rehearsal-pd", None, told)
    assert group_of(chosen("rehearsal-pd", "decode", told)) == "decode"
    with pytest.raises(BakeError, match="no group serve; it has prefill, decode"):
        chosen("rehearsal-pd", "serve", told)


MAY = [
    ("s3:GetObject", f"{BUCKET}/nodes/bake-serve-1/assignment.json"),
    ("s3:GetObject", f"{BUCKET}/bootstrap/abc.pyz"),
    ("s3:PutObject", f"{BUCKET}/nodes/bake-serve-1/status.json"),
]
MAY_NOT = [
    ("s3:GetObject", f"{BUCKET}/nodes/serve-0-0/assignment.json"),
    ("s3:GetObject", f"{BUCKET}/models/m/config.json"),
    ("s3:PutObject", f"{BUCKET}/nodes/bake-serve-1/assignment.json"),
    ("s3:PutObject", f"{BUCKET}/nodes/serve-0-0/status.json"),
    ("s3:GetObject", f"{BUCKET}/wheels/a.tar"),
    ("ssm:GetParameters", "arn:aws:ssm:us-east-1:1:parameter/moe-serving/x/api-key"),
    ("ec2:CreateImage", "*"),
]


def allows(document: str, action: str, resource: str) -> bool:
    return any(
        fnmatchcase(action, a) and fnmatchcase(resource, r)
        for s in json.loads(document)["Statement"]
        for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])
        for r in ([s["Resource"]] if isinstance(s["Resource"], str) else s["Resource"])
    )


@pytest.mark.parametrize(("action", "resource"), MAY)
def test_a_builder_may_read_what_it_is_told_and_say_how_it_is(action, resource):
    assert allows(policies.builder(BUCKET, "bake-serve-1"), action, resource)


@pytest.mark.parametrize(("action", "resource"), MAY_NOT)
def test_a_builder_may_do_nothing_else(action, resource):
    assert not allows(policies.builder(BUCKET, "bake-serve-1"), action, resource)


def test_a_builder_of_libraries_keeps_their_wheels():
    document = policies.builder(BUCKET, "bake-serve-1", builds=True)
    assert allows(document, "s3:PutObject", f"{BUCKET}/wheels/a.tar")


def test_the_digest_is_the_same_for_what_the_plan_says_and_what_a_node_read(told):
    read = from_json(Assignment, to_json(told, without_defaults=True))
    assert digest(read.software) == digest(told.software)
