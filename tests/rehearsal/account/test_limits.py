"""Quotas and capacity: what the account refuses for want of room, and who says so beforehand."""

from __future__ import annotations

import time

import pytest
from botocore.exceptions import ClientError

REGION, ZONE = "us-east-1", "us-east-1b"
P_VCPUS, INTERFACES, ELASTIC_IPS = "L-417A185B", "L-DF5E4CA3", "L-0263D0A3"
TYPE = "p5.48xlarge"
TYPE_VCPUS = 192


@pytest.fixture
def ec2(account):
    """EC2 of an account in which nothing is limited and nothing that a limit counts is left."""
    client = account.client("ec2")
    yield client
    limit(account)
    for reservation in client.describe_instances()["Reservations"]:
        end(client, *(i["InstanceId"] for i in reservation["Instances"]))
    for reserved in client.describe_capacity_reservations()["CapacityReservations"]:
        client.cancel_capacity_reservation(CapacityReservationId=reserved["CapacityReservationId"])
    for interface in client.describe_network_interfaces()["NetworkInterfaces"]:
        if interface["Status"] == "available":
            client.delete_network_interface(NetworkInterfaceId=interface["NetworkInterfaceId"])


@pytest.fixture
def subnet(ec2):
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    zones = ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [TYPE]}]
    )["InstanceTypeOfferings"]
    zone = min(z["Location"] for z in zones)
    made = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.0.0/20", AvailabilityZone=zone)
    return made["Subnet"]


def launch(ec2, subnet, **more):
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    return ec2.run_instances(
        ImageId=image,
        InstanceType=TYPE,
        MinCount=1,
        MaxCount=1,
        SubnetId=subnet["SubnetId"],
        **more,
    )["Instances"][0]


def end(ec2, *instances):
    ec2.terminate_instances(InstanceIds=list(instances))
    while any(
        i["State"]["Name"] != "terminated"
        for r in ec2.describe_instances(InstanceIds=list(instances))["Reservations"]
        for i in r["Instances"]
    ):
        time.sleep(0.05)


def code_of(call, *arguments, **named):
    with pytest.raises(ClientError) as refused:
        call(*arguments, **named)
    return refused.value.response["Error"]["Code"]


def limit(account, **limits):
    status, answer = account.control("PUT", "limits", {"region": REGION, **limits})
    assert status == 200, answer


def test_a_launch_past_the_vcpu_quota_is_refused(account, ec2, subnet):
    limit(account, quotas={P_VCPUS: 1.5 * TYPE_VCPUS})
    launch(ec2, subnet)
    assert code_of(launch, ec2, subnet) == "VcpuLimitExceeded"


def test_a_terminated_instance_gives_its_vcpus_back(account, ec2, subnet):
    limit(account, quotas={P_VCPUS: TYPE_VCPUS})
    first = launch(ec2, subnet)["InstanceId"]
    end(ec2, first)
    launch(ec2, subnet)


def test_spot_instances_count_against_a_quota_of_their_own(account, ec2, subnet):
    limit(account, quotas={P_VCPUS: 0})
    launch(ec2, subnet, InstanceMarketOptions={"MarketType": "spot"})
    limit(account, quotas={"L-7212CCBC": TYPE_VCPUS})
    spot = {"MarketType": "spot"}
    refused = code_of(launch, ec2, subnet, InstanceMarketOptions=spot)
    assert refused == "MaxSpotInstanceCountExceeded"


def test_interfaces_past_the_quota_are_refused_alone_and_with_an_instance(account, ec2, subnet):
    before = len(ec2.describe_network_interfaces()["NetworkInterfaces"])
    limit(account, quotas={INTERFACES: before + 1})
    ec2.create_network_interface(SubnetId=subnet["SubnetId"])
    refused = code_of(ec2.create_network_interface, SubnetId=subnet["SubnetId"])
    assert refused == "NetworkInterfaceLimitExceeded"
    assert code_of(launch, ec2, subnet) == "NetworkInterfaceLimitExceeded"


def test_elastic_ips_end_with_the_quota(account, ec2):
    limit(account, quotas={ELASTIC_IPS: 1})
    ec2.allocate_address(Domain="vpc")
    assert code_of(ec2.allocate_address, Domain="vpc") == "AddressLimitExceeded"


def test_a_zone_runs_out_of_a_type_and_the_error_names_both(account, ec2, subnet):
    zone = subnet["AvailabilityZone"]
    limit(account, capacity=[{"instance_type": TYPE, "zone": zone, "instances": 1}])
    launch(ec2, subnet)
    with pytest.raises(ClientError) as refused:
        launch(ec2, subnet)
    error = refused.value.response["Error"]
    assert error["Code"] == "InsufficientInstanceCapacity"
    assert TYPE in error["Message"]
    assert zone in error["Message"]


def test_a_reservation_is_had_whole_or_not_at_all(account, ec2, subnet):
    zone = subnet["AvailabilityZone"]
    limit(account, capacity=[{"instance_type": TYPE, "zone": zone, "instances": 2}])
    wanted = {"InstanceType": TYPE, "InstancePlatform": "Linux/UNIX", "AvailabilityZone": zone}
    refused = code_of(ec2.create_capacity_reservation, InstanceCount=3, **wanted)
    assert refused == "InsufficientInstanceCapacity"
    active = [{"Name": "state", "Values": ["active"]}]
    assert ec2.describe_capacity_reservations(Filters=active)["CapacityReservations"] == []
    made = ec2.create_capacity_reservation(
        InstanceCount=2, InstanceMatchCriteria="targeted", **wanted
    )["CapacityReservation"]
    assert code_of(launch, ec2, subnet) == "InsufficientInstanceCapacity"
    target = {"CapacityReservationId": made["CapacityReservationId"]}
    inside = launch(
        ec2, subnet, CapacityReservationSpecification={"CapacityReservationTarget": target}
    )
    assert inside["CapacityReservationId"] == made["CapacityReservationId"]


def test_a_cancelled_reservation_gives_back_what_nobody_uses(account, ec2, subnet):
    zone = subnet["AvailabilityZone"]
    limit(account, capacity=[{"instance_type": TYPE, "zone": zone, "instances": 1}])
    made = ec2.create_capacity_reservation(
        InstanceType=TYPE, InstancePlatform="Linux/UNIX", AvailabilityZone=zone, InstanceCount=1
    )["CapacityReservation"]["CapacityReservationId"]
    ec2.cancel_capacity_reservation(CapacityReservationId=made)
    launch(ec2, subnet)


def test_service_quotas_says_what_ec2_enforces(account, ec2):
    limit(account, quotas={P_VCPUS: 384})
    quotas = account.client("service-quotas")
    found = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=P_VCPUS)["Quota"]
    assert (found["QuotaName"], found["Value"]) == ("Running On-Demand P instances", 384)
    listed = quotas.list_service_quotas(ServiceCode="vpc")["Quotas"]
    assert {q["QuotaCode"]: q["Value"] for q in listed}[INTERFACES] == 50_000


def test_an_unknown_quota_is_the_services_own_error(account):
    quotas = account.client("service-quotas")
    refused = code_of(quotas.get_service_quota, ServiceCode="ec2", QuotaCode="L-00000000")
    assert refused == "NoSuchResourceException"


def test_limits_survive_a_restart_of_the_process(fresh):
    account = fresh()
    limit(account, quotas={P_VCPUS: 384})
    account.end()
    account.start()
    _, answer = account.control("GET", "limits")
    [here] = [r for r in answer["regions"] if r["region"] == REGION]
    assert here["quotas"] == {P_VCPUS: 384}


@pytest.mark.parametrize(
    "given",
    [
        {"region": "nowhere"},
        {"region": REGION, "quotas": {"L-00000000": 1}},
        {"region": REGION, "capacity": [{"zone": ZONE}]},
        {"region": REGION, "quotas": {P_VCPUS: "many"}},
    ],
)
def test_limits_that_make_no_sense_are_refused_and_change_nothing(account, ec2, given):
    status, answer = account.control("PUT", "limits", given)
    assert status == 400
    assert answer["error"]
    _, now = account.control("GET", "limits")
    assert all(r["quotas"] == {} and r["capacity"] == [] for r in now["regions"])
