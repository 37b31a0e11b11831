"""Faults injected into the account: each is met by the call it names, and by no other."""

from __future__ import annotations

import time

import pytest

from rehearsal.account.faults import Fault, Faults, parse

BROKEN = [
    ({}, "Expected a list"),
    ([{"kind": "earthquake"}], "kind must be one of"),
    ([{"kind": "throttle", "action": "RunInstances"}], "takes exactly action"),
    ([{"kind": "throttle", "action": "RunInstances", "calls": 0}], "1 or more"),
    ([{"kind": "slow-start", "seconds": True}], "takes exactly seconds"),
    ([{"kind": "wrong-file", "calls": 1}], "takes exactly file (str), calls (int)"),
    ([{"kind": "terminate", "id": "i-1", "seconds": 1}], "takes exactly id"),
]


@pytest.fixture
def inject():
    def put(running, *faults):
        assert running.control("PUT", "faults", list(faults))[0] == 200

    return put


@pytest.fixture
def running(fresh):
    return fresh()


@pytest.mark.parametrize(("given", "message"), BROKEN)
def test_a_broken_list_is_told_with_what_is_wrong(given, message):
    faults, wrong = parse(given)
    assert not faults
    assert message in " ".join(wrong)


def test_every_wrong_entry_is_named():
    assert len(parse([{"kind": "a"}, {"kind": "b"}])[1]) == 2


def test_the_second_instance_launched_finds_no_capacity_and_the_third_does(
    running, make_site, inject, refusal
):
    site = make_site(running)
    inject(running, {"kind": "insufficient-capacity", "launch": 2})
    site.run()
    assert refusal(site.run) == "InsufficientInstanceCapacity"
    site.run()
    found = site.ec2.describe_instances()["Reservations"]
    assert len(found) == 2


def test_the_next_calls_of_an_action_are_throttled_and_others_are_not(
    running, make_site, inject, refusal
):
    site = make_site(running)
    inject(running, {"kind": "throttle", "action": "DescribeVpcs", "calls": 2})
    assert refusal(site.ec2.describe_vpcs) == "RequestLimitExceeded"
    site.ec2.describe_subnets()
    assert refusal(site.ec2.describe_vpcs) == "RequestLimitExceeded"
    site.ec2.describe_vpcs()


def test_a_slow_start_keeps_an_instance_pending_until_the_fault_is_taken_away(
    running, make_site, inject
):
    site = make_site(running)
    inject(running, {"kind": "slow-start", "seconds": 600})
    instance = site.run()
    time.sleep(4)
    assert site.instance(instance["InstanceId"])["State"]["Name"] == "pending"
    inject(running)
    site.wait(instance["InstanceId"], "running")


def test_an_instance_that_aws_ended_says_so(running, make_site, inject):
    site = make_site(running)
    instance = site.run()
    inject(running, {"kind": "terminate", "id": instance["InstanceId"]})
    assert (
        site.wait(instance["InstanceId"], "terminated")["StateReason"]["Code"]
        == "Server.InternalError"
    )


def test_only_a_spot_instance_is_interrupted(running, make_site, inject):
    site = make_site(running)
    spot = site.run(InstanceMarketOptions={"MarketType": "spot"})
    plain = site.run()
    fault = {"kind": "spot-interruption"}
    status, answer = running.control("PUT", "faults", [{**fault, "id": plain["InstanceId"]}])
    assert (status, "no spot instance" in answer["error"]) == (400, True)
    inject(running, {**fault, "id": spot["InstanceId"]})
    reason = site.wait(spot["InstanceId"], "terminated")["StateReason"]
    assert reason["Code"] == "Server.SpotInstanceTermination"


def test_a_reservation_expires(running, inject):
    ec2 = running.client("ec2")
    made = ec2.create_capacity_reservation(
        InstanceType="m7i.large",
        InstancePlatform="Linux/UNIX",
        AvailabilityZone="us-east-1a",
        InstanceCount=1,
    )["CapacityReservation"]["CapacityReservationId"]
    inject(running, {"kind": "reservation-expired", "id": made})
    found = ec2.describe_capacity_reservations(CapacityReservationIds=[made])
    assert found["CapacityReservations"][0]["State"] == "expired"


def test_an_unknown_instance_is_told_and_nothing_is_injected(running):
    good = {"kind": "slow-start", "seconds": 5}
    status, answer = running.control("PUT", "faults", [good, {"kind": "terminate", "id": "i-0"}])
    assert (status, "there is no i-0" in answer["error"]) == (400, True)
    assert running.control("GET", "faults") == (200, {"faults": []})


def test_faults_survive_a_killed_process_and_used_ones_do_not_come_back(fresh, inject, refusal):
    first = fresh()
    inject(first, {"kind": "throttle", "action": "DescribeVpcs", "calls": 2})
    assert refusal(first.client("ec2").describe_vpcs) == "RequestLimitExceeded"
    first.kill()
    second = fresh()
    left = {"kind": "throttle", "action": "DescribeVpcs", "calls": 1}
    assert second.control("GET", "faults") == (200, {"faults": [left]})


def test_the_next_calls_of_s3_are_throttled_with_its_own_code(running, inject, refusal):
    s3 = running.client("s3")
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=b"x")
    inject(running, {"kind": "throttle", "action": "GetObject", "calls": 1})
    assert refusal(lambda: s3.get_object(Bucket="bucket", Key="k")) == "SlowDown"
    assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == b"x"
    assert s3.list_objects_v2(Bucket="bucket")["KeyCount"] == 1


def test_downloads_of_the_package_index_are_broken_as_often_as_was_asked_for(tmp_path):
    faults = Faults(tmp_path / "faults.json")
    faults.put([Fault("cut-download", file="torch-", bytes=10, calls=2)])
    found = [faults.download(name) for name in ("numpy-2.whl", *["torch-2.whl"] * 3)]
    assert found == [None, ("cut-download", 10), ("cut-download", 10), None]
