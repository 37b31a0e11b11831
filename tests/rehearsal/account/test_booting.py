"""Instances on a machine: what it is asked, and how EC2's states follow it."""

from __future__ import annotations

import json

import pytest

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"Service": "ec2.amazonaws.com"},
        }
    ],
}


@pytest.fixture(scope="module")
def site(booting, make_site):
    return make_site(booting)


@pytest.fixture(scope="module")
def profile(booting):
    iam = booting.client("iam")
    iam.create_role(RoleName="node", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.create_instance_profile(InstanceProfileName="node")
    iam.add_role_to_instance_profile(InstanceProfileName="node", RoleName="node")
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}],
    }
    iam.put_role_policy(RoleName="node", PolicyName="p", PolicyDocument=json.dumps(policy))
    return {"Name": "node"}


def launch(site, **request):
    started = site.run(SubnetId=site.subnet, SecurityGroupIds=[site.group], **request)
    return site.wait(started["InstanceId"], "running")


def rules(booting):
    return booting.calls("firewall")[-1]["rules"]


def test_the_machine_is_told_all_it_needs(booting, site):
    instance = launch(site)
    told = booting.calls("launch")[-1]
    primary = instance["NetworkInterfaces"][0]
    address = instance["PrivateIpAddress"]
    assert told == {
        "call": "launch",
        "instance_id": instance["InstanceId"],
        "image_id": site.image,
        "vpc_id": site.vpc,
        "vpc_cidr": "10.20.0.0/16",
        "subnet_id": site.subnet,
        "subnet_cidr": "10.20.0.0/24",
        "private_ip": address,
        "mac": primary["MacAddress"],
        "hostname": "ip-" + address.replace(".", "-"),
        "cpus": 2,
        "memory_mib": 8192,
    }


def test_stop_start_reboot_and_terminate_reach_the_machine(booting, site):
    instance = launch(site)["InstanceId"]
    ids = {"InstanceIds": [instance]}
    site.ec2.reboot_instances(**ids)
    site.ec2.stop_instances(**ids, Force=True)
    site.wait(instance, "stopped")
    site.ec2.start_instances(**ids)
    site.wait(instance, "running")
    site.ec2.terminate_instances(**ids)
    site.wait(instance, "terminated")
    asked = [c["call"] for c in booting.calls() if c.get("instance_id") == instance]
    assert asked == ["launch", "reboot", "stop", "start", "terminate"]


@pytest.mark.parametrize(("behavior", "state"), [("stop", "stopped"), ("terminate", "terminated")])
def test_an_instance_that_powers_itself_off_ends_as_its_shutdown_behavior_says(
    booting, site, behavior, state
):
    instance = launch(site, InstanceInitiatedShutdownBehavior=behavior)["InstanceId"]
    booting.machine_state(instance, "stopped")
    ended = site.wait(instance, state)
    assert ended["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_an_instance_that_is_gone_from_the_machine_is_terminated_by_the_server(booting, site):
    instance = launch(site)["InstanceId"]
    booting.machine_state(instance, "terminated")
    assert site.wait(instance, "terminated")["StateReason"]["Code"] == "Server.InternalError"


def test_group_rules_reach_the_machine_resolved_and_follow_every_change(booting, site):
    instance = launch(site)
    address = instance["PrivateIpAddress"]
    port = {"IpProtocol": "tcp", "FromPort": 9400, "ToPort": 9400}
    pair = [{"GroupId": site.group}]
    site.ec2.authorize_security_group_ingress(
        GroupId=site.group, IpPermissions=[{**port, "UserIdGroupPairs": pair}]
    )
    mine = [r for r in rules(booting) if r["address"] == address and r["from_port"] == 9400]
    assert len(mine) == 1
    assert f"{address}/32" in mine[0]["peers"]
    newcomer = launch(site)["PrivateIpAddress"]
    mine = [r for r in rules(booting) if r["address"] == address and r["from_port"] == 9400]
    assert f"{newcomer}/32" in mine[0]["peers"]
    site.ec2.revoke_security_group_ingress(
        GroupId=site.group, IpPermissions=[{**port, "UserIdGroupPairs": pair}]
    )
    assert [r for r in rules(booting) if r["from_port"] == 9400] == []


def test_an_instance_reads_its_own_identity_and_its_roles_credentials(booting, site, profile):
    instance = launch(
        site,
        IamInstanceProfile=profile,
        UserData="#cloud-config\n",
        MetadataOptions={"InstanceMetadataTags": "enabled"},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "n"}]}],
    )
    shown = site.ec2.get_console_output(InstanceId=instance["InstanceId"])["Output"]
    tree = json.loads(shown)
    data = tree["meta-data"]
    assert data["instance-id"] == instance["InstanceId"]
    assert data["local-ipv4"] == instance["PrivateIpAddress"]
    assert data["placement"] == {
        "availability-zone": "us-east-1a",
        "availability-zone-id": "use1-az6",
        "region": "us-east-1",
    }
    assert data["tags"] == {"instance": {"Name": "n"}}
    assert tree["user-data"] == "#cloud-config\n"
    assert json.loads(tree["dynamic"]["instance-identity"]["document"])["accountId"] == (
        "123456789012"
    )
    minted = json.loads(data["iam"]["security-credentials"]["node"])
    credentials = {
        "aws_access_key_id": minted["AccessKeyId"],
        "aws_secret_access_key": minted["SecretAccessKey"],
        "aws_session_token": minted["Token"],
    }
    identity = booting.client("sts", credentials).get_caller_identity()["Arn"]
    assert identity == f"arn:aws:sts::123456789012:assumed-role/node/{instance['InstanceId']}"
    booting.client("s3", credentials).list_buckets()


def test_what_the_machine_cannot_do_is_said_and_leaves_nothing(booting, site, refusal):
    before = len(site.ec2.describe_network_interfaces()["NetworkInterfaces"])

    def cannot():
        return site.run(SubnetId=site.subnet, PrivateIpAddress="10.20.0.66")

    assert refusal(cannot) == "Unsupported"
    assert len(site.ec2.describe_network_interfaces()["NetworkInterfaces"]) == before


def test_an_image_without_a_root_file_system_is_refused_unless_boot_is_off(booting, site, refusal):
    name = (
        "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
    )
    image = site.ssm.get_parameter(Name=name)["Parameter"]["Value"]

    def run():
        return site.run(SubnetId=site.subnet, ImageId=image)

    assert refusal(run) == "Unsupported"
    assert booting.control("PUT", "boot", {"enabled": False}) == (200, {"enabled": False})
    instance = run()["InstanceId"]
    site.wait(instance, "running")
    booting.control("PUT", "boot", {"enabled": True})
    assert instance not in [c["instance_id"] for c in booting.calls("launch")]
    _, listed = booting.control("GET", "instances")
    shown = next(i for i in listed["instances"] if i["id"] == instance)
    assert (shown["boots"], shown["state"], shown["machine_state"]) == (False, "running", "running")


def test_booted_instances_go_on_over_a_kill_of_the_account(fresh, make_site):
    account = fresh(boots=True)
    site = make_site(account)
    instance = site.run(SubnetId=site.subnet)["InstanceId"]
    account.kill()
    account.start()
    site.wait(instance, "running")
    account.kill()
    account.machine_state(instance, "stopped")
    account.start()
    site.wait(instance, "stopped")
