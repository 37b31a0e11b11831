"""AWS has room for one node of two: what is made, what is billed, what is said, how it goes on.

A reservation is room, and still a host in it may be missing.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from rehearsed import CHECKOUT, Rehearsed

pytestmark = pytest.mark.e2e

STACK, REGION, ZONE, TYPE = "wide-ep", "us-east-2", "us-east-2a", "p5en.48xlarge"
BILLED_WHILE_THERE = {
    "describe_nat_gateways": "NatGateways",
    "describe_addresses": "Addresses",
    "describe_volumes": "Volumes",
}


BALANCED = {"load_balancer": True, "allowed_cidrs": ["10.42.0.0/16"]}
"""A load balancer inside the VPC."""


def stacks_with(folder: Path, kind: str, endpoint: dict[str, Any] | None = None) -> Path:
    """The example over two nodes with another kind of capacity, and another endpoint."""
    data = yaml.safe_load((CHECKOUT / f"Pulumi.{STACK}.yaml").read_text())
    data["config"]["moe-serving:capacity"] = {"kind": kind}
    if endpoint is not None:
        data["config"]["moe-serving:endpoint"] = endpoint
    folder.mkdir()
    (folder / f"Pulumi.{STACK}.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return folder


class Account(Rehearsed):
    """A rehearsal in which AWS has so many instances of the type, and no more."""

    @property
    def endpoint(self) -> dict[str, Any]:
        return json.loads((self.root / "account/endpoint.json").read_text())

    def room_for(self, instances: int) -> None:
        row = {"instance_type": TYPE, "zone": ZONE, "instances": instances}
        told = self.put("limits", {"region": REGION, "capacity": [row]})
        assert told["capacity"] == [row]

    def refuse(self, *launches: int) -> None:
        """These of the next launches find no capacity, whatever is reserved."""
        self.put("faults", [{"kind": "insufficient-capacity", "launch": n} for n in launches])

    def put(self, path: str, given: Any) -> Any:
        request = urllib.request.Request(
            f"{self.endpoint['url']}/_rehearsal/{path}", json.dumps(given).encode(), method="PUT"
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            return json.load(answer)

    def ec2(self) -> Any:
        return self.client("ec2")

    def client(self, service: str) -> Any:
        keys = self.endpoint
        make: Any = boto3.client
        return make(
            service,
            endpoint_url=keys["url"],
            region_name=REGION,
            aws_access_key_id=keys["access_key_id"],
            aws_secret_access_key=keys["secret_access_key"],
        )

    def living(self) -> dict[str, str]:
        """Node -> id of its instance."""
        return {
            next(t["Value"] for t in i["Tags"] if t["Key"] == "Name"): i["InstanceId"]
            for r in self.ec2().describe_instances()["Reservations"]
            for i in r["Instances"]
            if i["State"]["Name"] != "terminated"
        }

    def billed(self) -> list[Any]:
        """All that costs money for being there."""
        ec2 = self.ec2()
        found: list[Any] = list(self.living())
        for call, key in BILLED_WHILE_THERE.items():
            found += getattr(ec2, call)()[key]
        found += [
            r
            for r in ec2.describe_capacity_reservations()["CapacityReservations"]
            if r["State"] == "active"
        ]
        found += self.client("elbv2").describe_load_balancers()["LoadBalancers"]
        endpoints = ec2.describe_vpc_endpoints()["VpcEndpoints"]
        return found + [e for e in endpoints if e["VpcEndpointType"] != "Gateway"]

    def up(self, *, check: bool = True) -> tuple[int, str]:
        done = self.run("up", "--stack", STACK, "--no-boot", check=check)
        return done.returncode, done.stdout


@pytest.fixture
def account(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Account]:
    """Room for one node, for a stack of two; request.param: its capacity's kind, its endpoint."""
    found = Account(tmp_path / "home", stacks_with(tmp_path / "stacks", *request.param))
    found.run("account-start")
    try:
        found.room_for(1)
        yield found
    finally:
        found.run("down", "--stack", STACK)


@pytest.mark.parametrize("account", [("reserve",), ("reserve", BALANCED)], indirect=True)
def test_with_reserve_nothing_that_is_billed_is_left_and_a_later_up_goes_through(
    account: Account,
) -> None:
    status, said = account.up(check=False)
    assert status != 0
    assert "InsufficientInstanceCapacity" in said
    assert f"EC2 refused {TYPE} in {ZONE}" in said
    assert "No node was started" in said
    assert "Next: another zone as network.zone" in said
    assert "Traceback" not in said
    assert account.billed() == []

    account.room_for(2)
    account.up()
    assert sorted(account.living()) == ["serve-0-0", "serve-0-1"]


@pytest.mark.parametrize("account", [("reserve",)], indirect=True)
def test_a_node_that_finds_no_host_in_its_reservation_is_asked_for_again(account: Account) -> None:
    account.room_for(2)
    account.refuse(2, 3, 4)
    status, said = account.up(check=False)
    assert status != 0
    assert "again in 5 s" in said
    assert f"EC2 refused {TYPE} in {ZONE}" in said
    assert "the reservation and the nodes in it are billed" in said
    assert "Next: `up` in a few minutes" in said
    (first,) = account.living().items()

    account.refuse(1)
    account.up()
    living = account.living()
    assert len(living) == 2
    assert first in living.items(), "the node that did start is the same"


@pytest.mark.parametrize("account", [("on-demand",)], indirect=True)
def test_without_reserve_one_node_starts_and_a_later_up_makes_the_other(account: Account) -> None:
    status, said = account.up(check=False)
    assert status != 0
    assert f"EC2 refused {TYPE} in {ZONE}" in said
    assert "Nodes that did start are billed until `destroy`" in said
    assert "Next: another zone as network.zone" in said
    (first,) = account.living().items()

    account.room_for(2)
    account.up()
    living = account.living()
    assert len(living) == 2
    assert first in living.items(), "the node that did start is the same"
