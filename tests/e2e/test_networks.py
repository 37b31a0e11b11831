"""A public endpoint, and a stack in a VPC that is there already, on the account without booting."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from certificates import imported
from rehearsed import CHECKOUT, Rehearsed, client_of

pytestmark = pytest.mark.nightly

STACK, REGION = "single-node", "us-east-2"
NOBODYS = f"arn:aws:acm:{REGION}:123456789012:certificate/0a1b2c3d-0000-0000-0000-000000000000"


class Account(Rehearsed):
    """A rehearsal's account and one example stack with other settings."""

    def client(self, service: str) -> Any:
        keys = json.loads((self.root / "account/endpoint.json").read_text())
        return client_of(keys, service, REGION)

    def settings(self, **sections: dict[str, Any]) -> None:
        data = yaml.safe_load((CHECKOUT / f"Pulumi.{STACK}.yaml").read_text())
        data["config"] |= {f"moe-serving:{name}": section for name, section in sections.items()}
        self.stacks.mkdir(exist_ok=True)
        (self.stacks / f"Pulumi.{STACK}.yaml").write_text(yaml.safe_dump(data))

    def up(self, *, check: bool = True) -> tuple[int, str]:
        done = self.run("up", "--stack", STACK, "--no-boot", check=check)
        return done.returncode, done.stdout


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    """An account of its own; `down` at the end, with its own proof that nothing is left."""
    found = Account(tmp_path / "home", tmp_path / "stacks")
    found.settings()
    found.run("account-start")
    try:
        yield found
    finally:
        found.run("down", "--stack", STACK)


def public(certificate: str) -> dict[str, Any]:
    return {
        "exposure": "public",
        "certificate_arn": certificate,
        "allowed_cidrs": ["203.0.113.0/24"],
    }


def test_a_public_endpoint_is_made_unchanged_and_taken_away(account: Account) -> None:
    account.settings(endpoint=public(NOBODYS))
    status, said = account.up(check=False)
    assert status != 0
    assert "CertificateNotFound" in said
    assert account.client("ec2").describe_instances()["Reservations"] == [], "nothing is billed"

    certificate = imported(account.client("acm"), "llm.example.org")
    account.settings(endpoint=public(certificate))
    _, said = account.up()
    elb = account.client("elbv2")
    (balancer,) = elb.describe_load_balancers()["LoadBalancers"]
    assert (balancer["Type"], balancer["Scheme"]) == ("network", "internet-facing")
    assert f"https://{balancer['DNSName']}/v1" in said
    (listener,) = elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    assert (listener["Protocol"], listener["Port"]) == ("TLS", 443)
    (group,) = elb.describe_target_groups()["TargetGroups"]
    health = elb.describe_target_health(TargetGroupArn=group["TargetGroupArn"])
    (target,) = health["TargetHealthDescriptions"]
    ec2 = account.client("ec2")
    instances = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    addresses = {i["InstanceType"]: i["PrivateIpAddress"] for i in instances}
    assert (target["Target"]["Id"], group["Protocol"]) == (addresses["c7i.xlarge"], "TLS")
    assert not any(i.get("PublicIpAddress") for i in instances), "the nodes stay private"
    _, said = account.up()
    assert re.search(r"Resources:\s+\d+ unchanged\s", said), said[-2000:]


def test_a_subnet_that_is_there_gets_the_nodes_and_keeps_the_rest(account: Account) -> None:
    ec2 = account.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
    place = {"VpcId": vpc, "CidrBlock": "10.77.1.0/24", "AvailabilityZone": f"{REGION}a"}
    subnet = ec2.create_subnet(**place)["Subnet"]["SubnetId"]
    account.settings(network={"vpc_id": vpc, "subnet_id": subnet})
    account.up()
    (instance,) = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    assert {nic["SubnetId"] for nic in instance["NetworkInterfaces"]} == {subnet}
    assert instance["PrivateIpAddress"].startswith("10.77.1.")
    for call, key in (
        ("describe_nat_gateways", "NatGateways"),
        ("describe_internet_gateways", "InternetGateways"),
        ("describe_vpc_endpoints", "VpcEndpoints"),
    ):
        assert getattr(ec2, call)()[key] == [], "its owner's business"


def test_a_subnet_of_another_network_is_refused_in_words_before_anything_is_made(
    account: Account,
) -> None:
    ec2 = account.client("ec2")
    vpcs = [ec2.create_vpc(CidrBlock=f"10.{n}.0.0/16")["Vpc"]["VpcId"] for n in (77, 78)]
    place = {"VpcId": vpcs[1], "CidrBlock": "10.78.1.0/24", "AvailabilityZone": f"{REGION}a"}
    subnet = ec2.create_subnet(**place)["Subnet"]["SubnetId"]
    account.settings(network={"vpc_id": vpcs[0], "subnet_id": subnet})
    status, said = account.up(check=False)
    assert status != 0
    assert f"it is in {vpcs[1]}, not in network.vpc_id {vpcs[0]}" in said
    assert "Traceback" not in said
    assert ec2.describe_instances()["Reservations"] == []
