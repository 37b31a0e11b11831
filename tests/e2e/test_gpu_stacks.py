"""Every GPU example against the strict account, without booting: made, unchanged, changed, gone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from rehearsed import CHECKOUT, Rehearsed, client_of

from infra import buildable, catalog, settings, sources
from infra.model import facts
from infra.plan.plan import Plan
from infra.planning import make_plan

EACH_RUN = "wide-ep"
"""What every run of the tests applies; the others: `make nightly`."""
GPU_STACKS = [
    pytest.param(name, marks=pytest.mark.e2e if name == EACH_RUN else pytest.mark.nightly)
    for name in ("single-node", "wide-ep", "pd", "p6-b200", "p6-b300")
]
INTERFACES = {"p5en.48xlarge": 17, "p6-b200.48xlarge": 9, "p6-b300.48xlarge": 17}


@dataclass
class Applied:
    """One example stack in an account of its own."""

    name: str
    folder: Path
    rehearsed: Rehearsed
    plan: Plan

    @property
    def file(self) -> Path:
        return self.folder / f"Pulumi.{self.name}.yaml"

    def up(self) -> str:
        return self.rehearsed.run("up", "--stack", self.name, "--no-boot").stdout

    def client(self, service: str) -> Any:
        account = json.loads((self.rehearsed.root / "account/endpoint.json").read_text())
        return client_of(account, service, self.plan.region)

    def instances(self) -> dict[str, dict[str, Any]]:
        """Node -> its instance as EC2 describes it, the nodes that run vLLM alone."""
        found = {
            next(t["Value"] for t in i["Tags"] if t["Key"] == "Name"): i
            for r in self.client("ec2").describe_instances()["Reservations"]
            for i in r["Instances"]
            if i["State"]["Name"] != "terminated"
        }
        return {name: found[name] for name in (node.name for node in self.plan.nodes)}

    def assignments(self) -> dict[str, dict[str, Any]]:
        s3 = self.client("s3")
        (bucket,) = [b["Name"] for b in s3.list_buckets()["Buckets"]]
        return {
            node.name: json.load(
                s3.get_object(Bucket=bucket, Key=f"nodes/{node.name}/assignment.json")["Body"]
            )
            for node in self.plan.nodes
        }


@pytest.fixture(scope="module", params=GPU_STACKS)
def applied(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Applied]:
    """An example stack, up; `down` after its tests, with its own proof that nothing is left."""
    name = request.param
    source = sources.read_file(CHECKOUT / f"Pulumi.{name}.yaml", CHECKOUT)
    wanted = settings.from_mapping(source.values, name)
    lacking = buildable.not_built_yet(wanted)
    if lacking:
        pytest.skip(" ".join(lacking))
    plan = make_plan(name, wanted, facts(wanted.model, CHECKOUT), source.region)
    folder = tmp_path_factory.mktemp(name)
    (folder / f"Pulumi.{name}.yaml").write_text((CHECKOUT / f"Pulumi.{name}.yaml").read_text())
    rehearsed = Rehearsed(folder / "home", folder)
    stack = Applied(name, folder, rehearsed, plan)
    try:
        stack.up()
        yield stack
    finally:
        said = rehearsed.run("down", "--stack", name).stdout
        assert f"nothing in the account carries the tag moe-serving:stack={name}" in said


def test_every_node_has_every_network_card_and_one_address(applied: Applied) -> None:
    for name, instance in applied.instances().items():
        kind = instance["InstanceType"]
        interfaces = instance["NetworkInterfaces"]
        assert len(interfaces) == INTERFACES[kind], name
        efas = [nic for nic in interfaces if nic["InterfaceType"] == "efa-only"]
        assert len(efas) == catalog.instance_type(kind).max_efa
        assert len([nic for nic in interfaces if nic.get("PrivateIpAddress")]) == 1
        assert not [nic for nic in interfaces if nic.get("Association")], "a public address"


def test_efa_is_on_card_0_where_the_type_has_it_there(applied: Applied) -> None:
    for instance in applied.instances().values():
        on_first = {
            nic["InterfaceType"]
            for nic in instance["NetworkInterfaces"]
            if nic["Attachment"]["NetworkCardIndex"] == 0
        }
        kind = instance["InstanceType"]
        assert ("efa-only" in on_first) == (kind != "p6-b300.48xlarge")


def test_all_nodes_are_in_one_zone_and_where_the_plan_has_it_in_one_placement_group(
    applied: Applied,
) -> None:
    places = [instance["Placement"] for instance in applied.instances().values()]
    assert len({place["AvailabilityZone"] for place in places}) == 1
    groups = {place.get("GroupName") or "" for place in places}
    assert len(groups) == 1
    assert bool(groups.pop()) == applied.plan.placement_group


def test_a_reservation_is_made_for_all_nodes_and_taken_by_them(applied: Applied) -> None:
    found = applied.client("ec2").describe_capacity_reservations()["CapacityReservations"]
    if applied.plan.capacity.kind != "reserve":
        assert found == []
        return
    (reservation,) = found
    assert reservation["TotalInstanceCount"] == len(applied.plan.nodes)
    assert reservation["AvailableInstanceCount"] == 0
    assert {i["CapacityReservationId"] for i in applied.instances().values()} == {
        reservation["CapacityReservationId"]
    }


def test_a_second_up_changes_nothing(applied: Applied) -> None:
    said = applied.up()
    assert re.search(r"Resources:\s+\d+ unchanged\s", said), said[-2000:]


def test_a_shorter_context_reaches_the_nodes_and_replaces_none(applied: Applied) -> None:
    before, told = applied.instances(), applied.assignments()
    data = yaml.safe_load(applied.file.read_text())
    for group in data["config"]["moe-serving:groups"].values():
        group["max_model_len"] = 4096
    applied.file.write_text(yaml.safe_dump(data, sort_keys=False))

    said = applied.up()

    changed = {n: (told[n]["revision"], a["revision"]) for n, a in applied.assignments().items()}
    assert all(old != new for old, new in changed.values())
    after = applied.instances()
    assert {n: i["InstanceId"] for n, i in after.items()} == {
        n: i["InstanceId"] for n, i in before.items()
    }
    assert "replaced" not in said
    assert "deleted" not in said
