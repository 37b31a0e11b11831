"""Listeners."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehearsal.provider import shapes
from rehearsal.provider.elb_common import Balancing, find

if TYPE_CHECKING:
    from rehearsal.provider.resource import Call, Change, Inputs, State


class Listener(Balancing):
    """A listener with its default action."""

    pulumi_type = "aws:lb/listener:Listener"
    updatable = frozenset(
        {"port", "protocol", "sslPolicy", "certificateArn", "defaultActions", "alpnPolicy",
         "tcpIdleTimeoutSeconds"}
    )  # fmt: skip
    force_new = frozenset({"loadBalancerArn", "region"})
    computed = frozenset({"protocol", "sslPolicy", "tcpIdleTimeoutSeconds", "mutualAuthentication"})
    not_imported = frozenset({"mutualAuthentication"})

    def check(self, inputs: Inputs) -> list[tuple[str, str]]:
        supported = {"forward", "redirect", "fixed-response"}
        found = [
            (f"defaultActions[{index}].type", f"this provider does not support {action['type']!r}")
            for index, action in enumerate(inputs.get("defaultActions") or [])
            if isinstance(action, dict) and action.get("type") not in supported
        ]
        fine = {"defaultActions", "loadBalancerArn", "port", "protocol", "certificateArn",
                "sslPolicy", "alpnPolicy", "tags", "tcpIdleTimeoutSeconds", "region"}  # fmt: skip
        reason = "this provider does not support"
        return found + [(key, f"{reason} {key!r}") for key in sorted(inputs.keys() - fine)]

    def create(self, call: Call, inputs: Inputs) -> str:
        asked = {"LoadBalancerArn": inputs["loadBalancerArn"], **_listener(inputs)}
        if inputs.get("tagsAll"):
            asked["Tags"] = shapes.tag_list(inputs["tagsAll"])
        made = call.client("elbv2").create_listener(**asked)
        return made["Listeners"][0]["ListenerArn"]

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        seconds = inputs.get("tcpIdleTimeoutSeconds")
        if seconds:
            call.client("elbv2").modify_listener_attributes(
                ListenerArn=rid,
                Attributes=[{"Key": "tcp.idle_timeout.seconds", "Value": str(seconds)}],
            )

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        found = find(call, "describe_listeners", "Listeners", ListenerArns=[rid])
        if found is None:
            return None
        certificates = found.get("Certificates") or []
        return {
            "arn": rid,
            "loadBalancerArn": found["LoadBalancerArn"],
            "port": found.get("Port"),
            "protocol": found.get("Protocol"),
            "sslPolicy": found.get("SslPolicy"),
            "certificateArn": certificates[0]["CertificateArn"] if certificates else None,
            "defaultActions": _actions_state(found, known),
            "tagsAll": self.tags_of(call, rid),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        if change.keys - {"tags", "tagsAll", "tcpIdleTimeoutSeconds"}:
            call.client("elbv2").modify_listener(ListenerArn=rid, **_listener(change.new))
        self.sync_tags(call, rid, change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        call.client("elbv2").delete_listener(ListenerArn=rid)


def _listener(inputs: Inputs) -> dict[str, Any]:
    fields = {"port": "Port", "protocol": "Protocol", "sslPolicy": "SslPolicy"}
    asked: dict[str, Any] = {api: inputs[key] for key, api in fields.items() if inputs.get(key)}
    if inputs.get("certificateArn"):
        asked["Certificates"] = [{"CertificateArn": inputs["certificateArn"]}]
    if inputs.get("alpnPolicy"):
        asked["AlpnPolicy"] = [inputs["alpnPolicy"]]
    actions = inputs["defaultActions"]
    asked["DefaultActions"] = [_action(action) for action in actions]
    return asked


def _action(action: Inputs) -> dict[str, Any]:
    result: dict[str, Any] = {"Type": action["type"]}
    if action.get("order"):
        result["Order"] = action["order"]
    if action.get("targetGroupArn"):
        result["TargetGroupArn"] = action["targetGroupArn"]
    if action.get("forward"):
        groups = action["forward"]["targetGroups"]
        result["ForwardConfig"] = {
            "TargetGroups": [
                {"TargetGroupArn": group["arn"], "Weight": group.get("weight", 1)}
                for group in groups
            ]
        }
    for key, api in (("redirect", "RedirectConfig"), ("fixedResponse", "FixedResponseConfig")):
        if action.get(key):
            fields = action[key].items()
            result[api] = {name[0].upper() + name[1:]: str(value) for name, value in fields}
    return result


def _actions_state(found: dict[str, Any], known: Inputs) -> list[dict[str, Any]]:
    """AWS's actions in the program's spelling: it answers a single target group twice."""
    state = []
    for index, action in enumerate(found.get("DefaultActions") or []):
        asked = (known.get("defaultActions") or [])[index : index + 1]
        entry: dict[str, Any] = {"type": action["Type"]}
        forward = action.get("ForwardConfig") or {}
        if action.get("TargetGroupArn") and not (asked and asked[0].get("forward")):
            entry["targetGroupArn"] = action["TargetGroupArn"]
        elif forward:
            entry["forward"] = {
                "targetGroups": [
                    {"arn": group["TargetGroupArn"], "weight": group.get("Weight", 1)}
                    for group in forward.get("TargetGroups") or []
                ]
            }
        for key, api in (("redirect", "RedirectConfig"), ("fixedResponse", "FixedResponseConfig")):
            if action.get(api):
                entry[key] = shapes.from_api(action[api])
        if action.get("Order"):
            entry["order"] = action["Order"]
        state.append(entry)
    return state
