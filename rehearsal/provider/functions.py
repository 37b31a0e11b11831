"""Functions of pulumi-aws: look-ups that make nothing."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rehearsal.provider import functions_ec2
from rehearsal.provider.wire import secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rehearsal.provider.resource import Call, Inputs, State


class InvokeError(Exception):
    """A function, or an argument of one, that can't be answered."""

    def __init__(self, reason: str, argument: str = "") -> None:
        super().__init__(reason)
        self.property = argument


@dataclass(frozen=True)
class Function:
    """A function: the arguments it understands, and what answers it."""

    arguments: frozenset[str]
    answer: Callable[[Call, Inputs], State]


def invoke(token: str, arguments: Inputs, call: Call) -> State:
    """The answer of a function, without what AWS left out.

    Raises:
        InvokeError: there is no such function here, or it has no such argument.
    """
    function = FUNCTIONS.get(token)
    if function is None:
        msg = f"this provider has no function {token}"
        raise InvokeError(msg)
    for name, value in arguments.items():
        if name not in function.arguments | {"region"} and value is not None:
            msg = f"this provider does not support the argument {name!r} of {token}"
            raise InvokeError(msg, name)
    answer = function.answer(call, {k: v for k, v in arguments.items() if v is not None})
    return {key: value for key, value in answer.items() if value is not None}


def _caller_identity(call: Call, arguments: Inputs) -> State:
    del arguments
    who = call.client("sts").get_caller_identity()
    account = who["Account"]
    return {"id": account, "accountId": account, "arn": who["Arn"], "userId": who["UserId"]}


def _region(call: Call, arguments: Inputs) -> State:
    name = arguments.get("name") or call.region
    endpoint = f"ec2.{name}.amazonaws.com"
    return {"id": name, "name": name, "region": name, "endpoint": endpoint, "description": name}


def _partition(call: Call, arguments: Inputs) -> State:
    del arguments
    partition = call.session.partition(call.region)
    suffix = "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com"
    reverse = ".".join(reversed(suffix.split(".")))
    return {
        "id": partition, "partition": partition, "dnsSuffix": suffix, "reverseDnsPrefix": reverse,
    }  # fmt: skip


def _parameter(call: Call, arguments: Inputs) -> State:
    decrypt = arguments.get("withDecryption", True)
    query = {"Name": arguments["name"], "WithDecryption": decrypt}
    found = call.client("ssm").get_parameter(**query)["Parameter"]
    value, hidden = found["Value"], found["Type"] == "SecureString"
    return {
        "id": found["ARN"],
        "name": arguments["name"],
        "arn": found["ARN"],
        "type": found["Type"],
        "value": secret(value) if hidden else value,
        "insecureValue": None if hidden else value,
        "version": found["Version"],
        "withDecryption": decrypt,
        "region": call.region,
    }


def _s3_object(call: Call, arguments: Inputs) -> State:
    bucket, key = arguments["bucket"], arguments["key"]
    query = {"Bucket": bucket, "Key": key}
    if arguments.get("versionId"):
        query["VersionId"] = arguments["versionId"]
    found = call.client("s3").get_object(**query)
    kind = found.get("ContentType", "")
    readable = kind.startswith("text/") or kind in _READABLE
    body = found["Body"].read() if readable else None
    return {
        "id": f"{bucket}/{key}",
        "arn": f"arn:{call.session.partition(call.region)}:s3:::{bucket}/{key}",
        "bucket": bucket,
        "key": key,
        "region": call.region,
        "body": body.decode() if body is not None else "",
        "contentLength": found["ContentLength"],
        "contentType": kind,
        "etag": found["ETag"].strip('"'),
        "lastModified": found["LastModified"].strftime("%a, %d %b %Y %H:%M:%S UTC"),
        "metadata": found.get("Metadata", {}),
        "versionId": found.get("VersionId"),
        "storageClass": found.get("StorageClass", "STANDARD"),
        "serverSideEncryption": found.get("ServerSideEncryption"),
    }


_READABLE = frozenset(
    {
        "application/json", "application/ld+json", "application/x-httpd-php",
        "application/xhtml+xml",
        "application/x-csh", "application/x-sh", "application/xml", "application/atom+xml",
        "application/x-sql", "application/yaml",
    }
)  # fmt: skip
"""Types whose body the real provider reads too: a body in the state must be text."""


def _policy_document(call: Call, arguments: Inputs) -> State:
    del call
    statements = [_statement(statement) for statement in arguments.get("statements") or []]
    document = {"Version": arguments.get("version", "2012-10-17"), "Statement": statements}
    if arguments.get("policyId"):
        document["Id"] = arguments["policyId"]
    text = json.dumps(document, indent=2)
    minified = json.dumps(document, separators=(",", ":"))
    digest = str(zlib.crc32(text.encode()))  # the real provider's id of a document
    return {"id": digest, "json": text, "minifiedJson": minified, **arguments}


def _statement(statement: Inputs) -> State:
    fields = {
        "sid": "Sid", "effect": "Effect", "actions": "Action", "notActions": "NotAction",
        "resources": "Resource", "notResources": "NotResource",
    }  # fmt: skip
    result: State = {"Effect": statement.get("effect", "Allow")}
    for name, api in fields.items():
        value = statement.get(name)
        if value:
            result[api] = value[0] if isinstance(value, list) and len(value) == 1 else value
    for name, api in (("principals", "Principal"), ("notPrincipals", "NotPrincipal")):
        if statement.get(name):
            result[api] = _principals(statement[name])
    for condition in statement.get("conditions") or []:
        test = result.setdefault("Condition", {}).setdefault(condition["test"], {})
        values = condition["values"]
        test[condition["variable"]] = values[0] if len(values) == 1 else values
    return result


def _principals(principals: Any) -> Any:
    result: dict[str, Any] = {}
    for principal in principals:
        names = principal["identifiers"]
        if principal["type"] == "*" and names == ["*"]:
            return "*"
        result[principal["type"]] = names[0] if len(names) == 1 else names
    return result


def _function(answer: Callable[[Call, Inputs], State], *arguments: str) -> Function:
    return Function(frozenset(arguments), answer)


FUNCTIONS: Mapping[str, Function] = {
    "aws:index/getCallerIdentity:getCallerIdentity": _function(_caller_identity, "id"),
    "aws:index/getRegion:getRegion": _function(_region, "id", "name"),
    "aws:index/getPartition:getPartition": _function(_partition, "id"),
    "aws:index/getAvailabilityZones:getAvailabilityZones": _function(
        functions_ec2.availability_zones, "allAvailabilityZones", "excludeNames", "excludeZoneIds",
        "filters",         "id", "state",
    ),
    "aws:ssm/getParameter:getParameter": _function(_parameter, "name", "withDecryption"),
    "aws:ec2/getInstanceType:getInstanceType": _function(
        functions_ec2.instance_type, "instanceType"
    ),
    "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings": _function(
        functions_ec2.instance_type_offerings, "filters", "locationType"
    ),
    "aws:ec2/getAmi:getAmi": _function(
        functions_ec2.ami, "executableUsers", "filters", "mostRecent", "owners"
    ),
    "aws:ec2/getSubnet:getSubnet": _function(
        functions_ec2.subnet, "availabilityZone", "availabilityZoneId", "cidrBlock",
        "defaultForAz", "filters",         "id", "state", "tags", "vpcId",
    ),
    "aws:ec2/getVpc:getVpc": _function(
        functions_ec2.vpc, "cidrBlock", "default", "dhcpOptionsId", "filters", "id", "state", "tags"
    ),
    "aws:iam/getPolicyDocument:getPolicyDocument": _function(
        _policy_document, "policyId", "statements", "version"
    ),
    "aws:s3/getObject:getObject": _function(_s3_object, "bucket", "key", "versionId"),
}  # fmt: skip
