"""Launch templates and instances: against moto's account, over gRPC."""

from __future__ import annotations

import base64
import threading
import time

import grpc
import pytest
from google.protobuf import empty_pb2
from moto.ec2.models.instances import Instance

from rehearsal.provider.wire import UNKNOWN

TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
INSTANCE = "aws:ec2/instance:Instance"


@pytest.fixture(scope="module")
def subnet(configured):
    vpc = configured.create("aws:ec2/vpc:Vpc", {"cidrBlock": "10.20.0.0/16"})
    inputs = {"vpcId": vpc.id, "cidrBlock": "10.20.1.0/24"}
    return configured.create("aws:ec2/subnet:Subnet", inputs).id


@pytest.fixture(scope="module")
def ami(clients):
    return clients("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"]


@pytest.fixture
def template_inputs(engine, subnet, ami):
    nic = engine.create("aws:ec2/networkInterface:NetworkInterface", {"subnetId": subnet})
    return {
        "imageId": ami,
        "instanceType": "t3.large",
        "userData": base64.b64encode(b"#cloud-config\n").decode(),
        "instanceInitiatedShutdownBehavior": "terminate",
        "metadataOptions": {"httpTokens": "required", "httpPutResponseHopLimit": 2},
        "networkInterfaces": [
            {
                "networkCardIndex": 0,
                "deviceIndex": 0,
                "networkInterfaceId": nic.id,
                "deleteOnTermination": "false",
            },
            {
                "networkCardIndex": 1,
                "deviceIndex": 1,
                "interfaceType": "efa-only",
                "subnetId": subnet,
                "securityGroups": ["sg-1"],
                "deleteOnTermination": "true",
            },
        ],
        "tagSpecifications": [{"resourceType": "instance", "tags": {"Name": "node"}}],
        "blockDeviceMappings": [
            {"deviceName": "/dev/xvda", "ebs": {"volumeSize": 40, "encrypted": "true"}}
        ],
    }


@pytest.fixture
def template(engine, template_inputs):
    return engine.create(TEMPLATE, template_inputs, name="node")


def test_a_template_arrives_with_the_types_that_the_api_wants(engine, template, ec2):
    assert template.state["latestVersion"] == 1
    assert template.inputs["name"].startswith("node-")
    version = ec2.describe_launch_template_versions(LaunchTemplateId=template.id)
    data = version["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    assert data["NetworkInterfaces"][0]["DeleteOnTermination"] is False
    assert data["NetworkInterfaces"][1]["Groups"] == ["sg-1"]
    assert data["TagSpecifications"][0]["Tags"] == [{"Key": "Name", "Value": "node"}]
    assert data["MetadataOptions"]["HttpTokens"] == "required"


def test_a_template_read_back_is_no_difference(engine, template, template_inputs):
    assert not engine.diff(engine.read(template), template_inputs).diffs


def test_a_changed_template_gets_a_version_whose_number_is_unknown_before(
    engine, template, template_inputs
):
    inputs = {**template_inputs, "userData": base64.b64encode(b"other").decode()}
    change = engine.diff(template, inputs)
    assert list(change.diffs) == ["userData"]
    assert not change.replaces
    assert engine.update(template, inputs, preview=True).state["latestVersion"] == UNKNOWN
    updated = engine.update(template, inputs)
    assert updated.state["latestVersion"] == 2
    assert updated.state["defaultVersion"] == 1


def test_only_tags_changed_is_no_new_version(engine, template, template_inputs):
    inputs = {**template_inputs, "tags": {"a": "b"}}
    assert engine.update(template, inputs, preview=True).state["latestVersion"] == 1
    assert engine.update(template, inputs).state["latestVersion"] == 1


def test_a_changed_interface_is_shown_where_it_changed(engine, template, template_inputs):
    nics = [template_inputs["networkInterfaces"][0], {**template_inputs["networkInterfaces"][1]}]
    nics[1]["deviceIndex"] = 0
    change = engine.diff(template, {**template_inputs, "networkInterfaces": nics})
    assert list(change.detailedDiff) == ["networkInterfaces[1].deviceIndex"]


def test_a_misspelt_nested_property_is_named(engine, template_inputs):
    nics = [{"deviceIndexx": 0}]
    answer = engine.check(TEMPLATE, {**template_inputs, "networkInterfaces": nics})
    assert [f.property for f in answer.failures] == ["networkInterfaces[0].deviceIndexx"]


@pytest.fixture
def instance(engine, ami, subnet):
    inputs = {"ami": ami, "instanceType": "t3.micro", "subnetId": subnet, "tags": {"Name": "n"}}
    return engine.create(INSTANCE, inputs)


def test_creating_an_instance_waits_until_it_runs(instance):
    assert instance.id.startswith("i-")
    assert instance.state["instanceState"] == "running"
    assert instance.state["privateIp"]
    assert instance.state["tagsAll"] == {"stack": "dev", "Name": "n"}


def test_an_instance_read_back_is_no_difference(engine, instance):
    inputs = {k: instance.inputs[k] for k in ("ami", "instanceType", "subnetId", "tags")}
    assert not engine.diff(engine.read(instance), inputs).diffs


def test_deleting_waits_until_it_is_terminated_and_may_be_done_twice(engine, instance, ec2):
    engine.delete(instance)
    found = ec2.describe_instances(InstanceIds=[instance.id])["Reservations"][0]["Instances"][0]
    assert found["State"]["Name"] == "terminated"
    engine.delete(instance)
    assert engine.read(instance).id == ""


def test_an_instance_that_was_terminated_elsewhere_is_gone(engine, instance, ec2):
    ec2.terminate_instances(InstanceIds=[instance.id])
    assert engine.read(instance).id == ""


def test_another_subnet_replaces_and_another_type_changes_in_place(engine, instance):
    base = {k: instance.inputs[k] for k in ("ami", "instanceType", "subnetId", "tags")}
    assert list(engine.diff(instance, {**base, "subnetId": "subnet-2"}).replaces) == ["subnetId"]
    bigger = {**base, "instanceType": "t3.large"}
    assert not engine.diff(instance, bigger).replaces
    updated = engine.update(instance, bigger)
    assert updated.state["instanceType"] == "t3.large"
    assert updated.state["instanceState"] == "running"


@pytest.mark.parametrize(
    ("version", "replaced"), [("1", False), ("2", True), (UNKNOWN, True)], ids=str
)
def test_another_template_version_replaces_an_instance_that_does_not_run_it(
    engine, instance, version, replaced
):
    ran = {**instance.state, "launchTemplate": {"id": "lt-1", "version": "1"}}
    old = {**instance.inputs, "launchTemplate": {"id": "lt-1", "version": "1"}}
    made = type(instance)(INSTANCE, instance.id, old, ran)
    base = {k: instance.inputs[k] for k in ("ami", "instanceType", "subnetId", "tags")}
    template = {"id": "lt-1", "version": version}
    change = engine.diff(made, {**base, "launchTemplate": template})
    assert list(change.replaces) == (["launchTemplate"] if replaced else [])


def test_user_data_of_a_template_is_not_kept_in_the_instances_state(engine, template):
    made = engine.create(INSTANCE, {"launchTemplate": {"id": template.id, "version": "1"}})
    assert "userData" not in made.state
    assert "userDataBase64" not in made.state


def test_a_start_without_image_is_refused_before_any_call(engine):
    answer = engine.check(INSTANCE, {"instanceType": "t3.micro"})
    assert [f.property for f in answer.failures] == ["ami"]


def test_an_error_of_ec2_is_told_in_its_own_words(engine, ami):
    inputs = {"ami": ami, "instanceType": "t3.micro", "subnetId": "subnet-0123456789abcdef0"}
    with pytest.raises(grpc.RpcError) as failed:
        engine.create(INSTANCE, inputs, name="lost")
    details = failed.value.details()
    assert "aws:ec2/instance:Instance 'lost'" in details
    assert "InvalidSubnetID.NotFound" in details
    assert "RunInstances" in details


@pytest.fixture
def stuck(monkeypatch):
    """Instances stay pending."""
    made = Instance.__init__

    def pending(self, *args, **kwargs):
        made(self, *args, **kwargs)
        self._state.name, self._state.code = "pending", 0

    monkeypatch.setattr(Instance, "__init__", pending)


def test_an_instance_that_does_not_start_in_time_stays_in_the_state(engine, ami, stuck):
    inputs = {"ami": ami, "instanceType": "t3.micro"}
    before = time.monotonic()
    with pytest.raises(grpc.RpcError) as failed:
        engine.create(INSTANCE, inputs, timeout=1)
    assert time.monotonic() - before < 10
    kept = engine.half_made(failed.value)
    assert kept.id.startswith("i-")
    assert kept.properties["instanceState"] == "pending"
    assert "time is over while waiting for" in kept.reasons[0]


def test_cancel_ends_the_waiting_and_keeps_what_exists(bare, ami, stuck):
    bare.configure(region="us-west-2")
    timer = threading.Timer(1.0, lambda: bare.stub.Cancel(empty_pb2.Empty()))
    timer.start()
    before = time.monotonic()
    with pytest.raises(grpc.RpcError) as failed:
        bare.create(INSTANCE, {"ami": ami, "instanceType": "t3.micro"}, timeout=60)
    assert time.monotonic() - before < 15
    assert "cancelled" in bare.half_made(failed.value).reasons[0]


def test_a_placement_group_forbids_nothing_and_names_itself(engine):
    planned = engine.create(
        "aws:ec2/placementGroup:PlacementGroup", {"strategy": "cluster"}, preview=True, name="pg"
    )
    assert planned.state["name"].startswith("pg-")
    assert planned.state["placementGroupId"] == UNKNOWN
