"""The account's state outlives its process, however that ends."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest
from certificates import imported

from rehearsal.account.endpoint import EndpointError, listen
from rehearsal.account.persistence import StateError, Store


def populate(account, make_site):
    site = make_site(account)
    eni = site.ec2.create_network_interface(SubnetId=site.subnet, Groups=[site.group])
    eni = eni["NetworkInterface"]["NetworkInterfaceId"]
    site.ec2.create_placement_group(GroupName="kept", Strategy="cluster")
    root = {"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": True}}
    launched = site.run(
        NetworkInterfaces=[{"NetworkInterfaceId": eni, "DeviceIndex": 0}],
        BlockDeviceMappings=[root],
    )
    imported(account.client("acm"), "kept.example.org")
    account.client("s3").create_bucket(Bucket="kept")
    account.client("s3").put_object(Bucket="kept", Key="a/b c", Body=b"z" * 100_000)
    ssm = account.client("ssm")
    ssm.put_parameter(
        Name="/kept/p", Value="v", Type="SecureString", Tags=[{"Key": "k", "Value": "v"}]
    )
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Principal": {"Service": "ec2.amazonaws.com"},
            }
        ],
    }
    account.client("iam").create_role(RoleName="kept", AssumeRolePolicyDocument=json.dumps(trust))
    return site, launched["InstanceId"], eni


def picture(account):
    ec2 = account.client("ec2")
    instances = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    interfaces = ec2.describe_network_interfaces()["NetworkInterfaces"]
    certificates = account.client("acm").list_certificates()["CertificateSummaryList"]
    ssm = account.client("ssm")
    return {
        "instances": [(i["InstanceId"], i["PrivateIpAddress"]) for i in instances],
        "interfaces": [(n["NetworkInterfaceId"], n.get("PrivateIpAddress")) for n in interfaces],
        "certificates": [c["DomainName"] for c in certificates],
        "groups": [g["GroupName"] for g in ec2.describe_placement_groups()["PlacementGroups"]],
        "object": account.client("s3").get_object(Bucket="kept", Key="a/b c")["Body"].read(),
        "parameter": ssm.get_parameter(Name="/kept/p", WithDecryption=True)["Parameter"]["Value"],
        "tags": ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId="/kept/p")[
            "TagList"
        ],
        "roles": [r["RoleName"] for r in account.client("iam").list_roles()["Roles"]],
    }


def test_a_killed_account_comes_back_as_it_was_a_second_after_the_last_change(fresh, make_site):
    account = fresh()
    site, instance, eni = populate(account, make_site)
    site.wait(instance, "running")
    before, where = picture(account), {**account.endpoint, "pid": 0}
    time.sleep(5)  # a second, and what a busy machine adds
    account.kill()
    account.start()
    assert {**account.endpoint, "pid": 0} == where
    assert picture(account) == before
    site.ec2.terminate_instances(InstanceIds=[instance])
    site.wait(instance, "terminated")
    site.ec2.delete_network_interface(NetworkInterfaceId=eni)


def test_an_account_that_is_shut_down_saves_and_ends_with_status_0(fresh, make_site):
    account = fresh()
    populate(account, make_site)
    before = picture(account)
    assert account.control("POST", "shutdown") == (200, {"stopping": True})
    assert account.process.wait(timeout=60) == 0
    account.start()
    assert picture(account) == before


def test_the_endpoint_with_the_admins_key_is_readable_by_its_owner_alone(account):
    path = account.home / "account"
    modes = {f.name: f.stat().st_mode & 0o777 for f in path.iterdir() if f.is_file()}
    assert modes == {"endpoint.json": 0o600, "state.pickle": 0o600}


def wait_for(holds):
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_bodies_of_deleted_objects_are_removed_from_disk(fresh):
    account = fresh()
    s3 = account.client("s3")
    s3.create_bucket(Bucket="bodies")
    s3.put_object(Bucket="bodies", Key="k", Body=b"x")
    bodies = account.home / "account" / "objects"
    wait_for(lambda: len(list(bodies.glob("*"))) == 1)
    s3.delete_object(Bucket="bodies", Key="k")
    wait_for(lambda: list(bodies.glob("*")) == [])


def test_a_taken_port_is_an_error_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EndpointError, match=f"127.0.0.1:{port}"):
            listen(port)


@pytest.mark.parametrize(
    "written", [b'{"python": "3.11.0", "moto": "5.0.0"}\n', b"\x80\x05not a state", b""]
)
def test_a_state_of_another_moto_or_a_damaged_one_is_refused_with_what_to_do(tmp_path, written):
    store = Store(tmp_path, threading.RLock())
    (tmp_path / "state.pickle").write_bytes(written)
    with pytest.raises(StateError, match="make down"):
        store.load()
