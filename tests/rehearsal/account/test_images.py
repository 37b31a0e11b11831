"""Images that are made from instances: what EC2 refuses, what it shows, what can boot them."""

from __future__ import annotations

import pytest

ROOT = "/dev/xvda"
TAGS = [{"Key": "moe-serving:release", "Value": "0.33.0"}]


@pytest.fixture(scope="module")
def site(booting, make_site):
    return make_site(booting)


@pytest.fixture
def launch(site):
    def launched(**request):
        started = site.run(SubnetId=site.subnet, SecurityGroupIds=[site.group], **request)
        return site.wait(started["InstanceId"], "running")["InstanceId"]

    return launched


@pytest.fixture
def stopped(site, launch):
    """An instance with an encrypted root of 40 GiB, stopped."""
    root = {"VolumeSize": 40, "VolumeType": "gp3", "Encrypted": True}
    instance = launch(BlockDeviceMappings=[{"DeviceName": ROOT, "Ebs": root}])
    site.ec2.stop_instances(InstanceIds=[instance])
    site.wait(instance, "stopped")
    return instance


def make(site, instance, name, **more):
    return site.ec2.create_image(InstanceId=instance, Name=name, **more)["ImageId"]


def described(site, image):
    (found,) = site.ec2.describe_images(ImageIds=[image])["Images"]
    return found


def available(booting, site, image):
    booting.machine_state(image, "available")
    assert described(site, image)["State"] == "available"
    return image


def test_an_image_is_pending_until_the_machine_has_copied_the_disk(booting, site, stopped):
    image = make(site, stopped, "copied")
    assert described(site, image)["State"] == "pending"
    assert booting.calls("make_image")[-1] == {
        "call": "make_image",
        "image_id": image,
        "instance_id": stopped,
    }
    available(booting, site, image)


def test_a_disk_that_could_not_be_copied_is_a_failed_image(booting, site, stopped):
    image = make(site, stopped, "uncopied")
    booting.machine_state(image, "failed")
    assert described(site, image)["State"] == "failed"


def test_an_image_has_the_root_of_its_instance_in_a_snapshot(site, stopped):
    specifications = [{"ResourceType": kind, "Tags": TAGS} for kind in ("image", "snapshot")]
    image = described(site, make(site, stopped, "rooted", TagSpecifications=specifications))
    (root,) = image["BlockDeviceMappings"]
    ebs = root["Ebs"]
    assert (root["DeviceName"], ebs["VolumeSize"], ebs["Encrypted"]) == (ROOT, 40, True)
    assert (image["Architecture"], image["Public"], image["Tags"]) == ("x86_64", False, TAGS)
    (snapshot,) = site.ec2.describe_snapshots(SnapshotIds=[ebs["SnapshotId"]])["Snapshots"]
    assert (snapshot["VolumeSize"], snapshot["Encrypted"], snapshot["Tags"]) == (40, True, TAGS)
    own = site.ec2.describe_images(Owners=["self"])["Images"]
    assert image["ImageId"] in [i["ImageId"] for i in own]


def test_a_new_instance_boots_from_it_with_an_encrypted_root_as_large(
    booting, site, launch, stopped
):
    image = available(booting, site, make(site, stopped, "booted"))
    instance = launch(ImageId=image)
    assert booting.calls("launch")[-1]["image_id"] == image
    (mapping,) = site.instance(instance)["BlockDeviceMappings"]
    ids = [mapping["Ebs"]["VolumeId"]]
    (volume,) = site.ec2.describe_volumes(VolumeIds=ids)["Volumes"]
    assert (volume["Size"], volume["Encrypted"]) == (40, True)


def test_a_smaller_root_than_the_images_is_refused(booting, site, launch, stopped, refusal):
    image = available(booting, site, make(site, stopped, "large"))
    small = [{"DeviceName": ROOT, "Ebs": {"VolumeSize": 39}}]
    code = refusal(lambda: launch(ImageId=image, BlockDeviceMappings=small))
    assert code == "InvalidBlockDeviceMapping"


def test_nothing_is_launched_from_a_pending_or_deregistered_image(
    booting, site, launch, stopped, refusal
):
    image = make(site, stopped, "early")
    assert refusal(lambda: launch(ImageId=image)) == "InvalidAMIID.Unavailable"
    available(booting, site, image)
    site.ec2.deregister_image(ImageId=image)
    assert refusal(lambda: launch(ImageId=image)) == "InvalidAMIID.Unavailable"


def test_a_name_is_used_once_and_free_again_after_deregistering(site, stopped, refusal):
    image = make(site, stopped, "one name")
    assert refusal(lambda: make(site, stopped, "one name")) == "InvalidAMIName.Duplicate"
    site.ec2.deregister_image(ImageId=image)
    make(site, stopped, "one name")


@pytest.mark.parametrize("name", ["x" * 129, "a:b", "größer"])
def test_a_name_that_ec2_does_not_take_is_refused(site, stopped, refusal, name):
    assert refusal(lambda: make(site, stopped, name)) == "InvalidAMIName.Malformed"


def test_only_stopped_or_running_instances_are_imaged(site, launch, refusal):
    instance = launch()
    make(site, instance, "running", NoReboot=True)
    site.ec2.terminate_instances(InstanceIds=[instance])
    site.wait(instance, "terminated")
    code = refusal(lambda: make(site, instance, "terminated", NoReboot=True))
    assert code == "IncorrectInstanceState"


def test_deregistering_leaves_the_snapshot_which_is_in_use_until_then(
    booting, site, stopped, refusal
):
    image = make(site, stopped, "gone")
    (root,) = described(site, image)["BlockDeviceMappings"]
    snapshot = root["Ebs"]["SnapshotId"]
    assert refusal(lambda: site.ec2.delete_snapshot(SnapshotId=snapshot)) == "InvalidSnapshot.InUse"
    site.ec2.deregister_image(ImageId=image)
    assert booting.calls("forget_image")[-1]["image_id"] == image
    assert site.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    site.ec2.delete_snapshot(SnapshotId=snapshot)


def test_a_public_image_is_not_ours_to_deregister(site, refusal):
    assert refusal(lambda: site.ec2.deregister_image(ImageId=site.image)) == "AuthFailure"


def test_an_image_of_an_instance_that_boots_nothing_is_whole_at_once(account, make_site):
    site = make_site(account)
    started = site.run(SubnetId=site.subnet, SecurityGroupIds=[site.group])["InstanceId"]
    site.wait(started, "running")
    image = make(site, started, "of states", NoReboot=True)
    assert described(site, image)["State"] == "available"


def test_images_are_there_after_a_restart_of_the_account(fresh, make_site):
    running = fresh(boots=True)
    site = make_site(running)
    started = site.run(SubnetId=site.subnet, SecurityGroupIds=[site.group])["InstanceId"]
    site.wait(started, "running")
    image = make(site, started, "kept", NoReboot=True)
    available(running, site, image)
    running.end()
    running.start()
    (found,) = running.client("ec2").describe_images(ImageIds=[image])["Images"]
    assert (found["Name"], found["State"]) == ("kept", "available")
