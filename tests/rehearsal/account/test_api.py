"""The endpoint's manners: unknown actions, things in use, images, control paths."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest


def eni(site, **request):
    return site.ec2.create_network_interface(SubnetId=site.subnet, Groups=[site.group], **request)[
        "NetworkInterface"
    ]


@pytest.mark.parametrize(
    ("service", "operation", "request_"),
    [
        ("ec2", "describe_ipam_pools", {}),
        (
            "ec2",
            "create_fleet",
            {
                "LaunchTemplateConfigs": [],
                "TargetCapacitySpecification": {"TotalTargetCapacity": 1},
            },
        ),
        ("ssm", "list_ops_item_events", {}),
        ("iam", "get_organizations_access_report", {"JobId": "x" * 36}),
    ],
)
def test_an_action_that_is_not_served_is_invalid_action(
    account, service, operation, request_, refusal
):
    call = getattr(account.client(service), operation)
    assert refusal(lambda: call(**request_)) == "InvalidAction"


def test_a_made_up_action_is_invalid_action(account, refusal):
    ec2 = account.client("ec2")
    model = ec2.meta.service_model.operation_model("DescribeVpcs")

    def rename(params, **_):
        return params["body"].update(Action="DescribeTheWeather")

    ec2.meta.events.register("before-call.ec2.DescribeVpcs", rename)
    assert model.name == "DescribeVpcs"
    assert refusal(ec2.describe_vpcs) == "InvalidAction"


def test_refusals_of_a_launch_reach_the_client(site, refusal):
    assert refusal(lambda: site.run(SubnetId=site.subnet, ImageId="ami-0123456789abcdef0")) == (
        "InvalidAMIID.NotFound"
    )
    assert refusal(lambda: site.run(SubnetId="subnet-0123456789abcdef0")) == (
        "InvalidSubnetID.NotFound"
    )
    unknown = {"LaunchTemplateId": "lt-0123456789abcdef0"}
    assert (
        refusal(lambda: site.ec2.run_instances(LaunchTemplate=unknown, MinCount=1, MaxCount=1))
        == "InvalidLaunchTemplateId.NotFound"
    )


def test_interfaces_get_different_addresses_of_their_subnet(site):
    addresses = [eni(site)["PrivateIpAddress"] for _ in range(20)]
    assert len(set(addresses)) == 20
    assert all(a.startswith("10.20.0.") for a in addresses)


def test_an_efa_only_interface_has_no_address_and_none_can_be_asked_for(site, refusal):
    made = eni(site, InterfaceType="efa-only")
    assert made["InterfaceType"] == "efa-only"
    assert "PrivateIpAddress" not in made

    def asked():
        return eni(site, InterfaceType="efa-only", PrivateIpAddress="10.20.0.200")

    assert refusal(asked) == "InvalidParameterValue"


def test_an_address_can_be_asked_for_once(site, refusal):
    made = eni(site, PrivateIpAddress="10.20.0.201")
    assert made["PrivateIpAddress"] == "10.20.0.201"

    def again():
        return eni(site, PrivateIpAddress="10.20.0.201")

    assert refusal(again) == "InvalidIPAddress.InUse"
    site.ec2.delete_network_interface(NetworkInterfaceId=made["NetworkInterfaceId"])
    assert again()["PrivateIpAddress"] == "10.20.0.201"


def test_a_full_subnet_says_so(account, make_site, refusal):
    site = make_site(account, cidr="10.20.9.0/28")
    for _ in range(11):
        eni(site)
    assert refusal(lambda: eni(site)) == "InsufficientFreeAddressesInSubnet"
    assert refusal(lambda: site.run(SubnetId=site.subnet)) == "InsufficientFreeAddressesInSubnet"


def test_a_nat_gateway_takes_an_address_of_its_subnet_and_gives_it_back(account, make_site):
    site = make_site(account)
    allocation = site.ec2.allocate_address(Domain="vpc")["AllocationId"]
    gateway = site.ec2.create_nat_gateway(SubnetId=site.subnet, AllocationId=allocation)
    site.ec2.delete_nat_gateway(NatGatewayId=gateway["NatGateway"]["NatGatewayId"])
    site.ec2.release_address(AllocationId=allocation)
    site.ec2.delete_subnet(SubnetId=site.subnet)


def test_what_is_in_use_cannot_be_deleted(account, make_site, refusal):
    site = make_site(account)
    ec2 = site.ec2
    ec2.create_placement_group(GroupName="used", Strategy="cluster")
    launched = site.run(
        SubnetId=site.subnet, SecurityGroupIds=[site.group], Placement={"GroupName": "used"}
    )
    interface = launched["NetworkInterfaces"][0]["NetworkInterfaceId"]
    delete = {
        "InvalidPlacementGroup.InUse": lambda: ec2.delete_placement_group(GroupName="used"),
        "InvalidParameterValue": lambda: ec2.delete_network_interface(NetworkInterfaceId=interface),
    }
    assert {code: refusal(call) for code, call in delete.items()} == {c: c for c in delete}
    for call in (
        lambda: ec2.delete_security_group(GroupId=site.group),
        lambda: ec2.delete_subnet(SubnetId=site.subnet),
        lambda: ec2.delete_vpc(VpcId=site.vpc),
    ):
        assert refusal(call) == "DependencyViolation"
    ec2.terminate_instances(InstanceIds=[launched["InstanceId"]])
    site.wait(launched["InstanceId"], "terminated")
    ec2.delete_security_group(GroupId=site.group)
    ec2.delete_subnet(SubnetId=site.subnet)
    ec2.delete_vpc(VpcId=site.vpc)
    ec2.delete_placement_group(GroupName="used")


def test_a_group_that_another_ones_rule_names_cannot_be_deleted(site, refusal):
    one, other = site.new_group("one"), site.new_group("other")
    rule = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": one}]}
    site.ec2.authorize_security_group_ingress(GroupId=other, IpPermissions=[rule])
    assert refusal(lambda: site.ec2.delete_security_group(GroupId=one)) == "DependencyViolation"


def test_unknown_security_groups_are_not_invented(site, refusal):
    def unknown():
        return site.ec2.create_network_interface(
            SubnetId=site.subnet, Groups=["sg-0123456789abcdef0"]
        )

    assert refusal(unknown) == "InvalidGroup.NotFound"


def test_efas_are_attached_while_stopped_only(site, refusal):
    launched = site.run(SubnetId=site.subnet, InstanceType="p5.48xlarge")["InstanceId"]
    site.wait(launched, "running")
    efa = eni(site, InterfaceType="efa-only")["NetworkInterfaceId"]

    def attach():
        return site.ec2.attach_network_interface(
            NetworkInterfaceId=efa, InstanceId=launched, DeviceIndex=1, NetworkCardIndex=3
        )

    assert refusal(attach) == "OperationNotPermitted"
    site.ec2.stop_instances(InstanceIds=[launched])
    site.wait(launched, "stopped")
    assert attach()["NetworkCardIndex"] == 3
    site.ec2.start_instances(InstanceIds=[launched])
    assert len(site.wait(launched, "running")["NetworkInterfaces"]) == 2


def test_attributes_of_an_instance_are_changed_and_some_only_while_it_is_stopped(site, refusal):
    launched = site.run(SubnetId=site.subnet)["InstanceId"]
    ec2 = site.ec2
    site.wait(launched, "running")
    ec2.modify_instance_attribute(InstanceId=launched, DisableApiTermination={"Value": True})

    def terminate():
        return ec2.terminate_instances(InstanceIds=[launched])

    assert refusal(terminate) == "OperationNotPermitted"
    ec2.modify_instance_attribute(InstanceId=launched, DisableApiTermination={"Value": False})
    ec2.modify_instance_attribute(
        InstanceId=launched, InstanceInitiatedShutdownBehavior={"Value": "terminate"}
    )

    def retype():
        return ec2.modify_instance_attribute(
            InstanceId=launched, InstanceType={"Value": "m7i.xlarge"}
        )

    assert refusal(retype) == "IncorrectInstanceState"
    ec2.modify_instance_metadata_options(InstanceId=launched, HttpTokens="required")
    options = site.instance(launched)["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpEndpoint"]) == ("required", "enabled")
    terminate()


def test_the_public_parameters_name_images_that_exist(account):
    ssm, ec2 = account.client("ssm"), account.client("ec2")
    names = [
        "/aws/service/debian/release/13/latest/amd64",
        (
            "/aws/service/deeplearning/ami/x86_64/"
            "base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
        ),
    ]
    found = ssm.get_parameters(Names=names)["Parameters"]
    images = ec2.describe_images(ImageIds=[p["Value"] for p in found])["Images"]
    sizes = {i["Name"][:6]: i["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] for i in images}
    assert sizes == {"debian": 8, "Deep L": 75}


def test_control_paths_say_what_they_do(account):
    assert account.control("GET", "health") == (200, {"ok": True})
    status, answer = account.control("PUT", "boot", {"enabled": True})
    assert status == 409
    assert "--image" in answer["error"]
    assert account.control("PUT", "boot", {"enabled": "yes"})[0] == 400
    assert account.control("GET", "weather")[0] == 404


def test_motos_own_control_paths_are_closed(account):
    request = urllib.request.Request(f"{account.endpoint['url']}/moto-api/reset", method="POST")
    with pytest.raises(urllib.error.HTTPError) as closed:
        urllib.request.urlopen(request, timeout=30)
    assert closed.value.code == 404


def test_a_region_that_nobody_used_before_has_the_public_images(account):
    ssm = account.client("ssm", region="eu-north-1")
    name = "/aws/service/debian/release/13/latest/amd64"
    image = ssm.get_parameter(Name=name)["Parameter"]["Value"]
    ec2 = account.client("ec2", region="eu-north-1")
    assert len(ec2.describe_images(ImageIds=[image])["Images"]) == 1


def test_a_launch_that_fails_half_way_leaves_nothing(site, refusal):
    before = len(site.ec2.describe_network_interfaces()["NetworkInterfaces"])
    volume = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 9, "VolumeType": "io2"}}

    def without_iops():
        return site.run(SubnetId=site.subnet, BlockDeviceMappings=[volume])

    assert refusal(without_iops) == "InvalidParameterDependency"
    assert len(site.ec2.describe_network_interfaces()["NetworkInterfaces"]) == before
