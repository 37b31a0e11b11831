"""Each refusal of EC2 that a launch of ours could meet, and what says so before EC2 is asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from infra.checks import ALL_RULES
from infra.preflight.run import CHECKS

HERE = Path(__file__).parent
TABLE = yaml.safe_load((HERE / "refusals" / "launches.yaml").read_text())
EXAMPLES = HERE.parents[1] / "infra" / "checks" / "examples"
PREFLIGHT = HERE.parents[1] / "infra" / "preflight"
TYPE = "p5.48xlarge"


@pytest.fixture(scope="module")
def things(site):
    """What the requests name."""
    ec2 = site.ec2
    for name in ("near", "far"):
        ec2.create_placement_group(GroupName=name, Strategy="cluster")
    reserve = {"InstanceType": TYPE, "InstancePlatform": "Linux/UNIX", "InstanceCount": 1}
    kept = ec2.create_capacity_reservation(**reserve, AvailabilityZone="us-east-1a")
    (far,) = ec2.describe_placement_groups(GroupNames=["far"])["PlacementGroups"]
    ec2.create_capacity_reservation(
        **reserve, AvailabilityZone="us-east-1b", PlacementGroupArn=far["GroupArn"]
    )
    full = site.new_subnet("10.20.200.0/28")
    for _ in range(11):
        ec2.create_network_interface(SubnetId=full)
    eni = ec2.create_network_interface(SubnetId=site.subnet)["NetworkInterface"]
    (image,) = ec2.describe_images(ImageIds=[site.image])["Images"]
    return {
        "$subnet": site.subnet,
        "$group": site.group,
        "$full": full,
        "$elsewhere": site.new_subnet("10.20.201.0/28", "us-east-1b"),
        "$eni": eni["NetworkInterfaceId"],
        "$root": image["RootDeviceName"],
        "$long": "x" * (16 * 1024 + 1),
        "$group_of_nodes": "near",
        "$group_elsewhere": "far",
        "$reservation": kept["CapacityReservation"]["CapacityReservationId"],
    }


def resolved(value, things):
    """A request of the table with the account's things in their places."""
    if isinstance(value, list):
        return [resolved(v, things) for v in value]
    if not isinstance(value, dict):
        return things.get(value, value) if isinstance(value, str) else value
    place = {"SubnetId": things["$subnet"], "Groups": [things["$group"]]}
    if "$primary" in value:
        return {"DeviceIndex": 0, **place, **resolved(value["$primary"], things)}
    if "$target" in value:
        target = {"CapacityReservationId": resolved(value["$target"], things)}
        return {"CapacityReservationTarget": target}
    if "$efa" in value:
        rest = {k: resolved(v, things) for k, v in value.items() if k != "$efa"}
        card = {"NetworkCardIndex": value["$efa"], "DeviceIndex": 1, "InterfaceType": "efa-only"}
        return {**card, **place, **rest}
    return {k: resolved(v, things) for k, v in value.items()}


@pytest.fixture
def limited(account):
    """Sets the account's limits for one test."""

    def put(limits):
        body = {"region": "us-east-1", "quotas": {}, "capacity": [], **limits}
        assert account.control("PUT", "limits", body)[0] == 200

    yield put
    put({})


def launch(site, things, changes):
    request = {"InstanceType": TYPE, **resolved(changes, things)}
    if "NetworkInterfaces" not in request:
        request.setdefault("SubnetId", site.subnet)
    # A dry run is judged like a launch, and one that passed would make nothing.
    return site.run(**request, DryRun=True)


@pytest.mark.parametrize("row", TABLE, ids=lambda r: r["case"])
def test_ec2_refuses_with_its_own_code(row, site, things, limited, refusal):
    if "limits" in row:
        limited(row["limits"])
    assert refusal(lambda: launch(site, things, row["request"])) == row["code"]


def test_the_launch_that_the_table_changes_is_accepted(site, things, refusal):
    assert refusal(lambda: launch(site, things, {})) == "DryRunOperation"


@pytest.mark.parametrize("row", TABLE, ids=lambda r: r["case"])
def test_each_case_is_caught_earlier_or_says_why_it_cannot_be(row):
    assert ("earlier" in row) != ("never" in row)
    if "never" in row:
        assert row["never"]
        return
    code = row["earlier"]["check"]
    if code.startswith("PREFLIGHT_"):
        assert code in {c.code for c in CHECKS}
        file, _, name = row["earlier"]["test"].partition("::")
        assert re.search(rf"^def {name}\(", (PREFLIGHT / file).read_text(), re.MULTILINE)
        return
    assert code in {r.code for r in ALL_RULES}
    examples = yaml.safe_load((EXAMPLES / f"{code}.yaml").read_text())
    assert examples["fails"][row["earlier"]["example"]]
