"""A client that isn't ours agrees: a p5en stack in Terraform's form is the same launch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from rehearsed import CHECKOUT, Rehearsed
from terraform_cli import Terraform, plugin_folder
from terraform_translation import translate

from infra.names import STACK_TAG

pytestmark = pytest.mark.nightly

STACK, REGION = "wide-ep", "us-east-2"
P5EN_INTERFACES = 17
ONLY_ONE_LIFE = {
    *("MacAddress", "AttachTime", "LaunchTime", "CreateTime", "ClientToken", "ReservationId"),
    *("UsageOperationUpdateTime", "PrivateDnsName", "ResponseMetadata", "CreatedBy", "StartDate"),
    *("CreateDate", "Tags"),
}
"""Fields that differ between two launches of one request; tags are compared by themselves."""
IDS = re.compile(r"\b(?:[a-z]+(?:-attach)?-[0-9a-f]{17}|10\.42\.\d+\.\d+|AIPA[A-Z0-9]+)\b")


@dataclass(frozen=True)
class Both:
    """One stack twice: as Pulumi made it in one account, and Terraform in another."""

    deployment: dict[str, Any]
    pulumi: Rehearsed
    other: Rehearsed
    terraform: Terraform


def client(account: Rehearsed, service: str) -> Any:
    endpoint = json.loads((account.root / "account/endpoint.json").read_text())
    return boto3.client(
        service,
        endpoint_url=endpoint["url"],
        region_name=REGION,
        aws_access_key_id=endpoint["access_key_id"],
        aws_secret_access_key=endpoint["secret_access_key"],
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    plugins = plugin_folder()
    place = tmp_path_factory.mktemp("terraform")
    pulumi, other = (Rehearsed(place / name, CHECKOUT) for name in ("pulumi", "other"))
    try:
        pulumi.run("up", "--stack", STACK, "--no-boot")
        state = json.loads(pulumi.pulumi("stack", "export", "--show-secrets", "--stack", STACK))
        other.run("account-start")
        folder = place / "terraform"
        folder.mkdir()
        (folder / "main.tf.json").write_text(json.dumps(document(state["deployment"])))
        endpoint = json.loads((other.root / "account/endpoint.json").read_text())
        terraform = Terraform(folder, endpoint, plugins)
        terraform("validate")
        terraform("apply", "-auto-approve")
        yield Both(state["deployment"], pulumi, other, terraform)
    finally:
        other.run("account-stop")
        pulumi.run("down", "--stack", STACK)


def document(deployment: dict[str, Any]) -> dict[str, Any]:
    provider = {
        "region": REGION,
        "max_retries": 3,
        "skip_metadata_api_check": True,
        "s3_use_path_style": True,
        "default_tags": {"tags": {STACK_TAG: STACK}},
    }
    return {
        "terraform": {"required_providers": {"aws": {"source": "hashicorp/aws"}}},
        "provider": {"aws": provider},
        "resource": translate(deployment, CHECKOUT),
    }


def launches(account: Rehearsed) -> dict[str, Any]:
    """Node -> its template and its instance as the account has them, without what one life gives.

    Ids are replaced by numbers in the order of their first appearance, within each node: equal
    documents name the same things in the same places.
    """
    ec2 = client(account, "ec2")
    found = {}
    for reservation in ec2.describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            tags = {t["Key"]: t["Value"] for t in instance["Tags"]}
            template = next(v for k, v in tags.items() if k == "aws:ec2launchtemplate:id")
            versions = ec2.describe_launch_template_versions(LaunchTemplateId=template)
            data = versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]
            given = {k: v for k, v in tags.items() if not k.startswith("aws:")}
            whole = lasting({"template": data, "instance": instance, "tags": given})
            found[tags["Name"]] = numbered(whole)
    return found


def lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: lasting(item) for key, item in value.items() if key not in ONLY_ONE_LIFE}
    if isinstance(value, list):
        items = [lasting(item) for item in value]
        return sorted(items, key=card) if items and isinstance(items[0], dict) else items
    return value


def card(item: dict[str, Any]) -> tuple[int, int, str]:
    """Interfaces by card and device, groups by their name: EC2 lists both in any order."""
    place = item.get("Attachment", item)
    return (
        place.get("NetworkCardIndex", 0),
        place.get("DeviceIndex", 0),
        item.get("GroupName", ""),
    )


def numbered(document: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(document, sort_keys=True, default=str)
    seen: dict[str, str] = {}

    def number(hit: re.Match[str]) -> str:
        kind = hit.group().rsplit("-", 1)[0] if "-" in hit.group() else "value"
        return seen.setdefault(hit.group(), f"{kind} {len(seen)}")

    return json.loads(IDS.sub(number, text))


def lines(launch: dict[str, Any]) -> list[str]:
    """For a difference that can be read."""
    return json.dumps(launch, indent=1, sort_keys=True).splitlines()


def test_terraform_takes_every_resource_of_the_stack(both: Both) -> None:
    made = [r for r in both.deployment["resources"] if r["custom"] and r["type"].startswith("aws:")]
    listed = json.loads(both.terraform("show", "-json"))["values"]["root_module"]["resources"]
    assert len(listed) == len(made)


def test_terraform_finds_the_account_as_it_asked_for_it(both: Both) -> None:
    assert "No changes." in both.terraform("plan", "-detailed-exitcode")


def test_the_accounts_record_of_each_launch_is_the_same(both: Both) -> None:
    pulumis, terraforms = launches(both.pulumi), launches(both.other)
    assert sorted(pulumis) == ["serve-0-0", "serve-0-1"]
    for node, launch in pulumis.items():
        assert len(launch["template"]["NetworkInterfaces"]) == P5EN_INTERFACES
        assert len(launch["instance"]["NetworkInterfaces"]) == P5EN_INTERFACES
        assert lines(terraforms[node]) == lines(launch)


def test_terraform_destroys_it_all(both: Both) -> None:
    both.terraform("destroy", "-auto-approve")
    assert not client(both.other, "s3").list_buckets()["Buckets"]
    states = {
        i["State"]["Name"]
        for r in client(both.other, "ec2").describe_instances()["Reservations"]
        for i in r["Instances"]
    }
    assert states <= {"terminated"}
