"""A stack of two GPU nodes, applied without booting where AWS has so much room and no more."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from rehearsed import CHECKOUT, Rehearsed, client_of

STACK, REGION, ZONE, TYPE = "wide-ep", "us-east-2", "us-east-2a", "p5en.48xlarge"
BILLED_WHILE_THERE = {
    "describe_nat_gateways": "NatGateways",
    "describe_addresses": "Addresses",
    "describe_volumes": "Volumes",
}


def stacks_with(
    folder: Path, capacity: dict[str, Any], endpoint: dict[str, Any] | None = None
) -> Path:
    """The example over two nodes with another kind of capacity, and another endpoint."""
    data = yaml.safe_load((CHECKOUT / f"Pulumi.{STACK}.yaml").read_text())
    data["config"]["moe-serving:capacity"] = capacity
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
        return client_of(self.endpoint, service, REGION)

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
