"""From a node's name to its instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import boto3

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef

from rehearsal.driver.errors import DriverError

LIVING = ("pending", "running", "stopping", "stopped", "shutting-down")


def instance_of(node: str, stack: str, session: boto3.Session) -> str:
    """Return the id of the instance that is a stack's node.

    Args:
        node: the node's name (its Name tag, or the end of it after a slash), or an instance id.
        stack: the stack's name, as in the tag moe-serving:stack.
        session: credentials and region of the account.

    Raises:
        DriverError: the stack has no such node; the message lists those it has.
    """
    names: dict[str, str] = {}
    pages = session.client("ec2").get_paginator("describe_instances")
    filters: list[FilterTypeDef] = [
        {"Name": "tag:moe-serving:stack", "Values": [stack]},
        {"Name": "instance-state-name", "Values": list(LIVING)},
    ]
    for page in pages.paginate(Filters=filters):
        for reservation in page["Reservations"]:
            for instance in reservation.get("Instances", []):
                tags = {tag.get("Key"): tag.get("Value", "") for tag in instance.get("Tags", [])}
                names[instance.get("InstanceId", "")] = tags.get("Name", "")
    if node in names:
        return node
    found = [identity for identity, name in names.items() if name.rpartition("/")[2] == node]
    if len(found) == 1:
        return found[0]
    has = ", ".join(sorted(name.rpartition("/")[2] or key for key, name in names.items())) or "none"
    raise DriverError(f"The stack {stack} has no node {node!r}. It has: {has}.")
