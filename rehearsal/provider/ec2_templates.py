"""Launch templates."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehearsal.provider import ec2, errors, shapes, tags
from rehearsal.provider.naming import Naming, unique_name
from rehearsal.provider.resource import Call, Change, Inputs, Resource, State

if TYPE_CHECKING:
    from collections.abc import Iterable

RENAMES = {
    "vpcSecurityGroupIds": "SecurityGroupIds",
    "securityGroupNames": "SecurityGroups",
    "ramDiskId": "RamDiskId",
    "securityGroups": "Groups",
    "ipv4Addresses": "PrivateIpAddresses",
    "ipv4AddressCount": "SecondaryPrivateIpAddressCount",
    "httpProtocolIpv6": "HttpProtocolIpv6",
}
LISTS = {"ipv4Prefixes": "Ipv4Prefix", "ipv6Prefixes": "Ipv6Prefix", "ipv6Addresses": "Ipv6Address",
         "ipv4Addresses": "PrivateIpAddress"}  # fmt: skip
DATA = frozenset(
    {
        "blockDeviceMappings", "capacityReservationSpecification", "cpuOptions",
        "creditSpecification", "disableApiStop", "disableApiTermination", "ebsOptimized",
        "enclaveOptions", "hibernationOptions", "iamInstanceProfile", "imageId",
        "instanceInitiatedShutdownBehavior", "instanceMarketOptions", "instanceRequirements",
        "instanceType", "kernelId", "keyName", "licenseSpecifications", "maintenanceOptions",
        "metadataOptions", "monitoring", "networkInterfaces", "networkPerformanceOptions",
        "placement", "privateDnsNameOptions", "ramDiskId", "secondaryInterfaces",
        "securityGroupNames", "tagSpecifications", "userData", "vpcSecurityGroupIds",
    }
)  # fmt: skip
"""Inputs that are in a version of the template; the rest belongs to the template itself."""


class LaunchTemplate(Resource):
    """A launch template; changing it adds a version, and running instances keep theirs."""

    pulumi_type = "aws:ec2/launchTemplate:LaunchTemplate"
    updatable = frozenset({*DATA, "description", "defaultVersion", "updateDefaultVersion"})
    force_new = frozenset({"name", "namePrefix", "region"})
    computed = frozenset({"defaultVersion", "namePrefix"})
    sets = frozenset({"vpcSecurityGroupIds", "securityGroupNames"})
    naming = Naming(max_length=128)
    not_imported = frozenset({"namePrefix", "defaultVersion"})

    def check(self, inputs: Inputs) -> list[tuple[str, str]]:
        if inputs.get("updateDefaultVersion") and "defaultVersion" in inputs:
            return [("defaultVersion", "conflicts with updateDefaultVersion")]
        return []

    def create(self, call: Call, inputs: Inputs) -> str:
        made = call.client("ec2").create_launch_template(
            LaunchTemplateName=inputs.get("name") or unique_name(inputs["namePrefix"]),
            TagSpecifications=tags.specification("launch-template", inputs),
            **self._version(call, inputs),
        )
        return made["LaunchTemplate"]["LaunchTemplateId"]

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        template = _find_template(call, rid)
        if template is None:
            return None
        latest = template["LatestVersionNumber"]
        versions = call.client("ec2").describe_launch_template_versions(
            LaunchTemplateId=rid, Versions=[str(latest)]
        )["LaunchTemplateVersions"]
        data = shapes.from_api(versions[0]["LaunchTemplateData"], RENAMES, LISTS)
        # EC2 keeps the tags of the template itself apart, moto lists them among the others
        specifications = [
            entry
            for entry in data.pop("tagSpecifications", None) or []
            if entry["resourceType"] != "launch-template"
        ]
        data |= {"tagSpecifications": specifications or None}
        return {
            **dict.fromkeys(DATA),
            **data,
            "arn": call.arn("ec2", f"launch-template/{rid}"),
            "name": template["LaunchTemplateName"],
            "description": versions[0].get("VersionDescription") or None,
            "latestVersion": latest,
            "defaultVersion": template["DefaultVersionNumber"],
            "tagsAll": shapes.tag_map(template.get("Tags")),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        client = call.client("ec2")
        default = change.new.get("defaultVersion") if change.any("defaultVersion") else None
        if change.keys & (DATA | {"description"}):
            made = client.create_launch_template_version(
                LaunchTemplateId=rid, **self._version(call, change.new)
            )
            if change.new.get("updateDefaultVersion"):
                default = made["LaunchTemplateVersion"]["VersionNumber"]
        if default is not None:
            client.modify_launch_template(LaunchTemplateId=rid, DefaultVersion=str(default))
        tags.sync_ec2(call, rid, change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        call.client("ec2").delete_launch_template(LaunchTemplateId=rid)

    def unknown_after(self, changed: Iterable[str]) -> frozenset[str]:
        # as in the real provider's plan: a new version has a number that only EC2 gives
        if DATA.isdisjoint(changed) and "description" not in set(changed):
            return frozenset()
        return frozenset({"latestVersion"})

    def _version(self, call: Call, inputs: Inputs) -> dict[str, Any]:
        asked: dict[str, Any] = {"launchTemplateData": {k: inputs[k] for k in DATA & inputs.keys()}}
        if inputs.get("description"):
            asked["versionDescription"] = inputs["description"]
        return ec2.parameters(call, "CreateLaunchTemplateVersion", asked, RENAMES, LISTS)


def versions_of(call: Call, template: str) -> tuple[str, str]:
    """(default, latest) version numbers of a template, as `$Default` and `$Latest` stand for."""
    found = _find_template(call, template) or {}
    return str(found.get("DefaultVersionNumber", "")), str(found.get("LatestVersionNumber", ""))


def _find_template(call: Call, rid: str) -> dict[str, Any] | None:
    try:
        operation, field = "describe_launch_templates", "LaunchTemplates"
        return ec2.find(call, operation, field, LaunchTemplateIds=[rid])
    except Exception as error:
        if errors.code(error) == "InvalidLaunchTemplateId.NotFoundException":
            return None
        raise
