"""A stack as Terraform's JSON: every resource of Pulumi's state, translated by rule. Pure.

pulumi-terraform's naming backwards: `aws:ec2/vpc:Vpc` is aws_vpc, `cidrBlock` is cidr_block. What
the rule can't know (names that AWS' provider for Terraform spells otherwise) is in small tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

TYPES = {
    "aws:ec2/capacityReservation:CapacityReservation": "aws_ec2_capacity_reservation",
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": (
        "aws_vpc_security_group_ingress_rule"
    ),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": "aws_vpc_security_group_egress_rule",
    "aws:s3/bucketObjectv2:BucketObjectv2": "aws_s3_object",
}
"""Tokens whose Terraform type isn't `aws_` with the resource, or with module and resource."""
BARE_MODULES = ("ec2",)
"""Modules that Terraform's types don't name."""
SINGULAR = {"rules": "rule"}
"""Blocks whose plural is Pulumi's."""
FREE_KEYS = ("tags",)
"""Maps whose keys are the user's."""
OF_PULUMI = ("__defaults", "tagsAll")
NEWER = {("aws:ec2/instance:Instance", "forceDestroy"): False}
"""Arguments that Terraform's provider has from 6.0 on, with what older ones do by themselves."""
MARK = "4dabf18193072939515e22adb298388d"
ATTRIBUTES = ("id", "arn", "name", "privateIp", "bucket", "availabilityZone")
"""Outputs that other resources are given, the first that fits wins."""


def translate(deployment: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Terraform's `resource` of all AWS resources of an exported state.

    Args:
        deployment: of `pulumi stack export --show-secrets`.
        root: folder that relative paths of files start from.
    """
    made = {
        r["urn"]: r
        for r in deployment["resources"]
        if r.get("custom") and r["type"].startswith("aws:")
    }
    found: dict[str, dict[str, Any]] = {}
    for resource in made.values():
        kind, name = address(resource).split(".")
        found.setdefault(kind, {})[name] = dict(_arguments(resource, made, root))
    return found


def address(resource: Mapping[str, Any]) -> str:
    """`aws_vpc.vpc`: Terraform's address of a resource."""
    name = resource["urn"].rpartition("::")[2]
    return f"{terraform_type(resource['type'])}.{re.sub(r'[^a-zA-Z0-9_-]', '-', name)}"


def terraform_type(token: str) -> str:
    """`aws:s3/bucketPolicy:BucketPolicy` as `aws_s3_bucket_policy`."""
    if token in TYPES:
        return TYPES[token]
    _, module, name = token.split(":")
    module, _, name = module.partition("/")
    return snake(f"aws_{name}" if module in BARE_MODULES else f"aws_{module}_{name}")


def snake(name: str) -> str:
    return re.sub(r"(?=[A-Z])", "_", name).lower()


def _arguments(
    resource: Mapping[str, Any], made: Mapping[str, Any], root: Path
) -> Iterator[tuple[str, Any]]:
    needed = resource.get("propertyDependencies") or {}
    for key, value in resource["inputs"].items():
        if key in OF_PULUMI or NEWER.get((resource["type"], key), ...) is value:
            continue
        references = _references([made[urn] for urn in needed.get(key) or () if urn in made])
        yield SINGULAR.get(key, snake(key)), _value(key, value, references, root)
    if "launchTemplate" in resource["inputs"]:
        # The provider hashes a template's user data twice when it plans (its issues 30825, 39476).
        yield "lifecycle", {"ignore_changes": ["user_data"]}
    after = sorted(
        {address(made[urn]) for urn in resource.get("dependencies") or () if urn in made}
    )
    if after:
        yield "depends_on", after


def _references(resources: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Values that are only known once something is made -> how Terraform asks for them."""
    found: dict[str, str] = {}
    for resource in resources:
        outputs = {"id": resource["id"], **resource["outputs"]}
        for attribute in ATTRIBUTES:
            value = outputs.get(attribute)
            if isinstance(value, str) and value:
                found.setdefault(value, f"${{{address(resource)}.{snake(attribute)}}}")
    return found


def _value(key: str, value: Any, references: Mapping[str, str], root: Path) -> Any:
    if isinstance(value, dict):
        if MARK in value and "path" in value:  # a file
            return str(root / value["path"])
        if MARK in value:  # a secret
            return json.loads(value["plaintext"])
        keep = key in FREE_KEYS
        return {
            name if keep else SINGULAR.get(name, snake(name)): _value(name, item, references, root)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_value(key, item, references, root) for item in value]
    if isinstance(value, str):
        return _text(value, references)
    return value


def _text(text: str, references: Mapping[str, str]) -> str:
    """Text of Terraform's template language, with references where values of the state were."""
    text = text.replace("${", "$${").replace("%{", "%%{")
    if not references:
        return text
    # The longest first: an ARN ends with a name. In one pass: a reference holds no value.
    known = sorted(references, key=len, reverse=True)
    pattern = "|".join(rf"(?<![\w.-]){re.escape(value)}(?![\w-]|\.\d)" for value in known)
    return re.sub(pattern, lambda hit: references[hit.group()], text)
