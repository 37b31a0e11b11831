"""RunInstances on the real endpoint: what was asked for is what is there."""

from __future__ import annotations

import base64
import gzip
import time

EFA_ONLY = {"InterfaceType": "efa-only", "DeviceIndex": 1}


def template(site, name, **data):
    return site.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)[
        "LaunchTemplate"
    ]["LaunchTemplateId"]


def primary_interface(site, **request):
    return site.ec2.create_network_interface(SubnetId=site.subnet, Groups=[site.group], **request)[
        "NetworkInterface"
    ]


def p5_interfaces(site, primary):
    extra = {"SubnetId": site.subnet, "Groups": [site.group], **EFA_ONLY}
    return [
        {"NetworkInterfaceId": primary, "DeviceIndex": 0, "NetworkCardIndex": 0},
        *({**extra, "NetworkCardIndex": card} for card in range(32)),
    ]


def test_a_template_with_all_cards_of_a_p5_gives_33_interfaces_and_one_address(site):
    eni = primary_interface(site)
    site.ec2.create_placement_group(GroupName="p5", Strategy="cluster")
    lt = template(
        site,
        "p5",
        ImageId=site.image,
        InstanceType="p5.48xlarge",
        NetworkInterfaces=p5_interfaces(site, eni["NetworkInterfaceId"]),
        MetadataOptions={
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 2,
            "InstanceMetadataTags": "enabled",
        },
        Placement={"GroupName": "p5"},
        InstanceInitiatedShutdownBehavior="terminate",
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "a"}]}],
    )
    launched = site.ec2.run_instances(
        LaunchTemplate={"LaunchTemplateId": lt, "Version": "$Latest"}, MinCount=1, MaxCount=1
    )["Instances"][0]
    instance = site.wait(launched["InstanceId"], "running")

    cards = sorted(
        (n["Attachment"]["NetworkCardIndex"], n["Attachment"]["DeviceIndex"], n["InterfaceType"])
        for n in instance["NetworkInterfaces"]
    )
    assert cards == [(0, 0, "interface"), *((card, 1, "efa-only") for card in range(32))]
    addresses = [n.get("PrivateIpAddress") for n in instance["NetworkInterfaces"]]
    assert (
        [a for a in addresses if a] == [eni["PrivateIpAddress"]] == [instance["PrivateIpAddress"]]
    )
    assert instance["Placement"]["GroupName"] == "p5"
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    assert instance["MetadataOptions"]["HttpPutResponseHopLimit"] == 2
    assert {"Key": "Name", "Value": "a"} in instance["Tags"]
    behavior = site.ec2.describe_instance_attribute(
        InstanceId=instance["InstanceId"], Attribute="instanceInitiatedShutdownBehavior"
    )
    assert behavior["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"


def test_the_request_wins_over_its_template_and_empty_values_do_not_count(site):
    lt = template(site, "wins", ImageId=site.image, InstanceType="m7i.large")
    launched = site.ec2.run_instances(
        LaunchTemplate={"LaunchTemplateId": lt},
        InstanceType="m7i.xlarge",
        SubnetId=site.subnet,
        Placement={"AvailabilityZone": ""},
        MinCount=1,
        MaxCount=1,
    )["Instances"][0]
    assert launched["InstanceType"] == "m7i.xlarge"
    assert launched["ImageId"] == site.image


def test_a_premade_interface_is_available_again_after_termination_and_others_are_gone(site):
    eni = primary_interface(site)["NetworkInterfaceId"]
    second = {"SubnetId": site.subnet, "DeviceIndex": 1, "Groups": [site.group]}
    launched = site.run(NetworkInterfaces=[{"NetworkInterfaceId": eni, "DeviceIndex": 0}, second])
    other = next(
        n["NetworkInterfaceId"]
        for n in launched["NetworkInterfaces"]
        if n["NetworkInterfaceId"] != eni
    )
    site.wait(launched["InstanceId"], "running")
    site.ec2.terminate_instances(InstanceIds=[launched["InstanceId"]])
    site.wait(launched["InstanceId"], "terminated")
    shown = site.ec2.describe_network_interfaces()["NetworkInterfaces"]
    statuses = {n["NetworkInterfaceId"]: n["Status"] for n in shown}
    assert statuses[eni] == "available"
    assert other not in statuses


def test_user_data_comes_back_as_it_was_given_also_gzipped(site):
    packed = gzip.compress(b"#cloud-config\n")
    instance = site.run(SubnetId=site.subnet, UserData=packed)
    shown = site.ec2.describe_instance_attribute(
        InstanceId=instance["InstanceId"], Attribute="userData"
    )
    assert base64.b64decode(shown["UserData"]["Value"]) == packed


def test_the_same_client_token_gives_the_same_instance_and_another_request_is_refused(
    site, refusal
):
    first = site.run(SubnetId=site.subnet, ClientToken="once")
    again = site.run(SubnetId=site.subnet, ClientToken="once")
    assert first["InstanceId"] == again["InstanceId"]

    def other():
        return site.run(SubnetId=site.subnet, InstanceType="m7i.xlarge", ClientToken="once")

    assert refusal(other) == "IdempotentParameterMismatch"


def test_the_root_volume_has_the_images_size_unless_a_mapping_says_otherwise(site):
    plain = site.run(SubnetId=site.subnet)
    mapping = {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 50, "Encrypted": True}}
    bigger = site.run(SubnetId=site.subnet, BlockDeviceMappings=[mapping])

    def root(instance):
        of = [{"Name": "attachment.instance-id", "Values": [instance["InstanceId"]]}]
        return site.ec2.describe_volumes(Filters=of)["Volumes"]

    assert [v["Size"] for v in root(plain)] == [8]
    assert [(v["Size"], v["Encrypted"]) for v in root(bigger)] == [(50, True)]


def test_a_capacity_reservation_counts_what_was_launched_into_it(account, make_site, refusal):
    site = make_site(account)
    reservation = site.ec2.create_capacity_reservation(
        InstanceType="m7i.large",
        InstancePlatform="Linux/UNIX",
        AvailabilityZone="us-east-1a",
        InstanceCount=1,
        InstanceMatchCriteria="targeted",
    )["CapacityReservation"]["CapacityReservationId"]
    into = {"CapacityReservationTarget": {"CapacityReservationId": reservation}}
    launched = site.run(SubnetId=site.subnet, CapacityReservationSpecification=into)
    assert launched["CapacityReservationId"] == reservation

    def full():
        return site.run(SubnetId=site.subnet, CapacityReservationSpecification=into)

    assert refusal(full) == "ReservationCapacityExceeded"
    site.ec2.cancel_capacity_reservation(CapacityReservationId=reservation)
    site.ec2.terminate_instances(InstanceIds=[launched["InstanceId"]])
    site.wait(launched["InstanceId"], "terminated")
    shown = site.ec2.describe_capacity_reservations(CapacityReservationIds=[reservation])
    left = shown["CapacityReservations"][0]
    assert (left["State"], left["AvailableInstanceCount"]) == ("cancelled", 0)


def test_sixty_four_nodes_with_33_interfaces_are_launched_and_described_in_seconds(
    account, make_site
):
    site = make_site(account, cidr="10.20.0.0/24")
    began = time.monotonic()
    for _ in range(64):
        eni = primary_interface(site)["NetworkInterfaceId"]
        site.run(InstanceType="p5.48xlarge", NetworkInterfaces=p5_interfaces(site, eni))
    vpc = [{"Name": "vpc-id", "Values": [site.vpc]}]
    pages = site.ec2.get_paginator("describe_instances").paginate(Filters=vpc)
    nodes = [i for p in pages for r in p["Reservations"] for i in r["Instances"]]
    assert sum(len(n["NetworkInterfaces"]) for n in nodes) == 64 * 33
    assert time.monotonic() - began < 60
