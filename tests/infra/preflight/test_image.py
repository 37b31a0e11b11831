from __future__ import annotations

import pytest

from infra.preflight import image
from infra.preflight.image import DEBIAN_PARAMETER, GPU_PARAMETER, images_of, judge_image


def test_the_newest_image_is_looked_at_where_none_is_named(result_of, asked):
    result = result_of("AMI", asked())
    assert result.state == "PASS"
    assert "debian-13-amd64" in result.message
    assert "a root of 8 GiB" in result.message


def test_gpu_nodes_and_their_gateway_boot_from_two_images(results_of, asked):
    nodes = {"serve": ("p5en.48xlarge", 2), "gateway": ("c7i.xlarge", 1)}
    first, second = results_of("AMI", asked(nodes=nodes, gpu=True))
    assert "Deep Learning Base" in first.message
    assert "debian-13" in second.message


def test_an_image_of_the_users_own_is_for_the_groups(asked):
    nodes = {"serve": ("p5en.48xlarge", 2), "gateway": ("c7i.xlarge", 1)}
    assert images_of(asked(nodes=nodes, ami="ami-1")) == {
        None: ("p5en.48xlarge",),
        DEBIAN_PARAMETER: ("c7i.xlarge",),
    }
    assert list(images_of(asked(nodes=nodes))) == [GPU_PARAMETER, DEBIAN_PARAMETER]


def test_an_image_that_is_not_there_fails(result_of, asked):
    result = result_of("AMI", asked(ami="ami-0123456789abcdef0"))
    assert result.state == "FAIL"
    assert "us-east-1 has no image ami-0123456789abcdef0" in result.message


def test_a_region_without_the_public_parameter_fails(stubbed, asked):
    aws = stubbed(ssm=[("get_parameter", "ParameterNotFound", "none")])
    (verdict,) = image._image(aws, asked())
    assert (verdict.state, verdict.remedy) == ("FAIL", "set ami to an image's id")


GOOD = {
    "ImageId": "ami-1",
    "Name": "debian",
    "State": "available",
    "Architecture": "x86_64",
    "RootDeviceType": "ebs",
    "RootDeviceName": "/dev/xvda",
    "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 8}}],
}
FAULTS = [
    ({"State": "deregistered"}, "its state is deregistered"),
    ({"Architecture": "arm64"}, "it is for arm64, c7i.large is x86_64"),
    ({"Platform": "windows"}, "a Windows image"),
    ({"RootDeviceType": "instance-store"}, "its root is not on EBS"),
]


@pytest.mark.parametrize(("changes", "said"), FAULTS, ids=[said for _, said in FAULTS])
def test_an_image_that_can_not_boot_the_nodes_fails(changes, said):
    verdict = judge_image(GOOD | changes, ("c7i.large",))
    assert verdict.state == "FAIL"
    assert said in verdict.message


@pytest.mark.parametrize(
    ("tags", "state"),
    [
        ([], "PASS"),
        ([{"Key": "moe-serving:software", "Value": "d1"}], "PASS"),
        ([{"Key": "moe-serving:software", "Value": "d0"}], "WARN"),
    ],
    ids=["not baked", "baked with the same", "baked with another"],
)
def test_a_baked_image_with_other_software_boots_with_a_warning(tags, state):
    verdict = judge_image(GOOD | {"Tags": tags}, ("c7i.large",), {"serve": "d1"})
    assert verdict.state == state
    assert state == "PASS" or "other software than serve" in verdict.message
