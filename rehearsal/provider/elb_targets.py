"""Target groups and their targets."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

from typing import Any, ClassVar

from rehearsal.provider import errors, shapes
from rehearsal.provider.elb_common import NAME_LENGTH, Balancing, attribute_list, find, typed
from rehearsal.provider.naming import Naming, unique_name
from rehearsal.provider.resource import MINUTE, Call, Change, Inputs, Resource, State

_GROUP_ATTRIBUTES = {
    "deregistrationDelay": "deregistration_delay.timeout_seconds",
    "connectionTermination": "deregistration_delay.connection_termination.enabled",
    "preserveClientIp": "preserve_client_ip.enabled",
    "proxyProtocolV2": "proxy_protocol_v2.enabled",
    "slowStart": "slow_start.duration_seconds",
    "loadBalancingAlgorithmType": "load_balancing.algorithm.type",
    "loadBalancingCrossZoneEnabled": "load_balancing.cross_zone.enabled",
}
_STICKINESS = {
    "enabled": "stickiness.enabled",
    "type": "stickiness.type",
    "cookieDuration": "stickiness.lb_cookie.duration_seconds",
}
_HEALTH = {
    "enabled": "HealthCheckEnabled", "healthyThreshold": "HealthyThresholdCount",
    "interval": "HealthCheckIntervalSeconds", "path": "HealthCheckPath",
    "port": "HealthCheckPort", "protocol": "HealthCheckProtocol",
    "timeout": "HealthCheckTimeoutSeconds", "unhealthyThreshold": "UnhealthyThresholdCount",
}  # fmt: skip


class TargetGroup(Balancing):
    """A target group."""

    pulumi_type = "aws:lb/targetGroup:TargetGroup"
    updatable = frozenset({*_GROUP_ATTRIBUTES, "stickiness", "healthCheck"})
    force_new = frozenset({"name", "namePrefix", "port", "protocol", "protocolVersion", "vpcId",
                           "targetType", "ipAddressType", "region"})  # fmt: skip
    computed = frozenset({*_GROUP_ATTRIBUTES, "healthCheck", "ipAddressType", "namePrefix",
                          "protocolVersion", "stickiness", "targetFailovers", "targetGroupHealth",
                          "targetHealthStates", "loadBalancingAnomalyMitigation"})  # fmt: skip
    defaults: ClassVar = {
        "targetType": "instance",
        "proxyProtocolV2": False,
        "deregistrationDelay": 300,
    }
    naming = Naming(max_length=NAME_LENGTH)
    not_imported = frozenset({"namePrefix"})
    unsupported = frozenset(
        {"lambdaMultiValueHeadersEnabled", "loadBalancingAnomalyMitigation", "targetControlPort",
         "targetFailovers", "targetGroupHealth", "targetHealthStates"}
    )  # fmt: skip

    def check(self, inputs: Inputs) -> list[tuple[str, str]]:
        sticky = inputs.get("stickiness")
        given = sticky.keys() if isinstance(sticky, dict) else set()
        wrong = sorted(given - _STICKINESS.keys())
        return [(f"stickiness.{key}", f"this provider does not support {key!r}") for key in wrong]

    def create(self, call: Call, inputs: Inputs) -> str:
        fields = {
            "port": "Port", "protocol": "Protocol", "protocolVersion": "ProtocolVersion",
            "vpcId": "VpcId", "targetType": "TargetType", "ipAddressType": "IpAddressType",
        }  # fmt: skip
        asked: dict[str, Any] = {
            "Name": inputs.get("name") or unique_name(inputs["namePrefix"])[:NAME_LENGTH],
            **{api: inputs[key] for key, api in fields.items() if inputs.get(key)},
            **_health(call, "CreateTargetGroup", inputs.get("healthCheck") or {}),
        }
        if inputs.get("tagsAll"):
            asked["Tags"] = shapes.tag_list(inputs["tagsAll"])
        made = call.client("elbv2").create_target_group(**asked)
        return made["TargetGroups"][0]["TargetGroupArn"]

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        changed = attribute_list(_GROUP_ATTRIBUTES, inputs, self._attributes(call, rid))
        sticky = inputs.get("stickiness")
        if sticky:
            now = self._attributes(call, rid)
            changed += attribute_list(_STICKINESS, sticky, now)
        if changed:
            call.client("elbv2").modify_target_group_attributes(
                TargetGroupArn=rid, Attributes=changed
            )

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        query = {"TargetGroupArns": [rid]}
        found = find(call, "describe_target_groups", "TargetGroups", **query)
        if found is None:
            return None
        health = {name: found.get(api) for name, api in _HEALTH.items()}
        health["matcher"] = (found.get("Matcher") or {}).get("HttpCode")
        return {
            "arn": rid,
            "arnSuffix": rid.split(":", 5)[-1],
            "name": found["TargetGroupName"],
            "port": found.get("Port"),
            "protocol": found.get("Protocol"),
            "protocolVersion": found.get("ProtocolVersion"),
            "vpcId": found.get("VpcId"),
            "targetType": found.get("TargetType"),
            "ipAddressType": found.get("IpAddressType"),
            "loadBalancerArns": found.get("LoadBalancerArns") or [],
            "healthCheck": {key: value for key, value in health.items() if value is not None},
            "tagsAll": self.tags_of(call, rid),
            **typed(_GROUP_ATTRIBUTES, self._attributes(call, rid)),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        if change.any("healthCheck") and change.new.get("healthCheck"):
            asked = _health(call, "ModifyTargetGroup", change.new["healthCheck"])
            call.client("elbv2").modify_target_group(TargetGroupArn=rid, **asked)
        self.sync_tags(call, rid, change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        client = call.client("elbv2")
        call.retry(
            lambda: client.delete_target_group(TargetGroupArn=rid),
            lambda error: errors.code(error) == "ResourceInUse",
            seconds=5 * MINUTE,
        )

    def _attributes(self, call: Call, rid: str) -> dict[str, str]:
        answer = call.client("elbv2").describe_target_group_attributes(TargetGroupArn=rid)
        return {entry["Key"]: entry["Value"] for entry in answer["Attributes"]}


class TargetGroupAttachment(Resource):
    """One target of a target group."""

    pulumi_type = "aws:lb/targetGroupAttachment:TargetGroupAttachment"
    force_new = frozenset({"targetGroupArn", "targetId", "port", "availabilityZone", "region",
                           "quicServerId"})  # fmt: skip
    unsupported = frozenset({"quicServerId"})

    def create(self, call: Call, inputs: Inputs) -> str:
        arn = inputs["targetGroupArn"]
        call.client("elbv2").register_targets(TargetGroupArn=arn, Targets=[_target(inputs)])
        port = f"-{inputs['port']}" if inputs.get("port") else ""
        return f"{arn}-{inputs['targetId']}{port}"

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del rid
        client = call.client("elbv2")
        try:
            answer = client.describe_target_health(
                TargetGroupArn=known["targetGroupArn"], Targets=[_target(known)]
            )
        except Exception as error:
            if errors.gone(error) or errors.code(error) == "InvalidTarget":
                return None
            raise
        alive = [
            entry
            for entry in answer["TargetHealthDescriptions"]
            if entry["TargetHealth"].get("Reason")
            not in ("Target.NotRegistered", "Target.DeregistrationInProgress")
        ]
        if not alive:
            return None
        return {key: known.get(key) for key in ("targetGroupArn", "targetId", "port")}

    def update(self, call: Call, rid: str, change: Change) -> None:
        """Every input replaces it."""

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del rid
        call.client("elbv2").deregister_targets(
            TargetGroupArn=state["targetGroupArn"], Targets=[_target(state)]
        )


def _health(call: Call, operation: str, check: Inputs) -> dict[str, Any]:
    model = call.client("elbv2").meta.service_model.operation_model(operation).input_shape
    asked = {api: check[key] for key, api in _HEALTH.items() if check.get(key) is not None}
    asked = shapes.to_api(asked, model)
    if check.get("matcher"):
        asked["Matcher"] = {"HttpCode": check["matcher"]}
    return asked


def _target(inputs: Inputs) -> dict[str, Any]:
    fields = {"targetId": "Id", "port": "Port", "availabilityZone": "AvailabilityZone"}
    return {api: inputs[key] for key, api in fields.items() if inputs.get(key)}
