"""Security groups and their rules."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

from typing import Any, ClassVar

from rehearsal.provider import ec2, shapes, tags
from rehearsal.provider.naming import Naming, unique_name
from rehearsal.provider.resource import MINUTE, Call, Change, Inputs, Resource, State, Timeouts

_ANYWHERE = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]


class SecurityGroup(Resource):
    """A security group; without rules it lets nothing out, since AWS's default is revoked."""

    pulumi_type = "aws:ec2/securityGroup:SecurityGroup"
    updatable = frozenset({"ingress", "egress", "revokeRulesOnDelete"})
    force_new = frozenset({"name", "namePrefix", "description", "vpcId", "region"})
    computed = frozenset({"vpcId", "ingress", "egress", "namePrefix"})
    sets = frozenset({"ingress", "egress"})
    defaults: ClassVar = {"description": "Managed by Pulumi", "revokeRulesOnDelete": False}
    naming = Naming()
    not_imported = frozenset({"namePrefix", "ingress", "egress"})
    timeouts = Timeouts(create=10 * MINUTE, delete=15 * MINUTE)

    def create(self, call: Call, inputs: Inputs) -> str:
        name = inputs.get("name") or unique_name(inputs["namePrefix"])
        place = {"VpcId": inputs["vpcId"]} if "vpcId" in inputs else {}
        made = call.client("ec2").create_security_group(
            GroupName=name,
            Description=inputs["description"],
            TagSpecifications=tags.specification("security-group", inputs),
            **place,
        )
        # Every new group lets all out:
        # https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules.html
        # As in the real provider, only what the program writes is let through.
        client, rid = call.client("ec2"), made["GroupId"]
        group = call.wait(f"{rid} to be visible", lambda: _find_group(call, rid))
        if group.get("IpPermissionsEgress"):
            client.revoke_security_group_egress(GroupId=rid, IpPermissions=_ANYWHERE)
        return rid

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        if "ingress" in inputs or "egress" in inputs:
            self._inline(call, rid, inputs)

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        group = _find_group(call, rid)
        if group is None:
            return None
        return {
            "arn": call.arn("ec2", f"security-group/{rid}"),
            "name": group["GroupName"],
            "description": group["Description"],
            "vpcId": group.get("VpcId"),
            "ownerId": group.get("OwnerId"),
            "ingress": _inline_of(group.get("IpPermissions"), rid, known.get("ingress")),
            "egress": _inline_of(group.get("IpPermissionsEgress"), rid, known.get("egress")),
            "tagsAll": shapes.tag_map(group.get("Tags")),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        tags.sync_ec2(call, rid, change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        client = call.client("ec2")
        if state.get("revokeRulesOnDelete"):
            self._inline(call, rid, {"ingress": [], "egress": []})
        ec2.delete_when_free(
            call,
            lambda: client.delete_security_group(GroupId=rid),
            "DependencyViolation",
            "InvalidGroup.InUse",
        )

    def _inline(self, call: Call, rid: str, inputs: Inputs) -> None:
        client, group = call.client("ec2"), _find_group(call, rid) or {}
        for side, field, revoke, authorize in (
            ("ingress", "IpPermissions", "revoke_security_group_ingress",
             "authorize_security_group_ingress"),
            ("egress", "IpPermissionsEgress", "revoke_security_group_egress",
             "authorize_security_group_egress"),
        ):  # fmt: skip
            if side not in inputs:
                continue
            wanted = [_permission(rule, rid) for rule in inputs[side]]
            now = _inline_of(group.get(field), rid, inputs[side]) or []
            before = [_permission(rule, rid) for rule in now]
            gone = [rule for rule in before if rule not in wanted]
            new = [rule for rule in wanted if rule not in before]
            if gone:
                getattr(client, revoke)(GroupId=rid, IpPermissions=gone)
            if new:
                getattr(client, authorize)(GroupId=rid, IpPermissions=new)


def _find_group(call: Call, rid: str) -> dict[str, Any] | None:
    return ec2.find(call, "describe_security_groups", "SecurityGroups", GroupIds=[rid])


def _permission(rule: Inputs, own: str) -> dict[str, Any]:
    """One inline rule as the API's IpPermission."""
    permission: dict[str, Any] = {"IpProtocol": str(rule["protocol"]).lower().replace("all", "-1")}
    if permission["IpProtocol"] != "-1":
        permission |= {"FromPort": rule["fromPort"], "ToPort": rule["toPort"]}
    note = {"Description": rule["description"]} if rule.get("description") else {}
    groups = [*(rule.get("securityGroups") or []), *([own] if rule.get("self") else [])]
    permission |= {
        "IpRanges": [{"CidrIp": cidr, **note} for cidr in rule.get("cidrBlocks") or []],
        "Ipv6Ranges": [{"CidrIpv6": cidr, **note} for cidr in rule.get("ipv6CidrBlocks") or []],
        "PrefixListIds": [{"PrefixListId": p, **note} for p in rule.get("prefixListIds") or []],
        "UserIdGroupPairs": [{"GroupId": group, **note} for group in groups],
    }
    return {key: value for key, value in permission.items() if value != []}


def _inline_of(permissions: Any, own: str, wanted: Any) -> list[dict[str, Any]]:
    """AWS's permissions as inline rules, cut as the program cut them where the sum is the same.

    AWS merges rules of one port range; the program may have written several.
    """
    single: list[dict[str, Any]] = []
    for permission in permissions or []:
        base = {
            "protocol": permission["IpProtocol"],
            "fromPort": permission.get("FromPort", 0),
            "toPort": permission.get("ToPort", 0),
        }
        for field, key, target in (
            ("IpRanges", "CidrIp", "cidrBlocks"),
            ("Ipv6Ranges", "CidrIpv6", "ipv6CidrBlocks"),
            ("PrefixListIds", "PrefixListId", "prefixListIds"),
        ):
            single += [
                {**base, target: [entry[key]], "description": entry.get("Description", "")}
                for entry in permission.get(field) or []
            ]
        for pair in permission.get("UserIdGroupPairs") or []:
            peer = (
                {"self": True} if pair["GroupId"] == own else {"securityGroups": [pair["GroupId"]]}
            )
            single.append({**base, **peer, "description": pair.get("Description", "")})
    if wanted and _atoms(wanted) == _atoms(single):
        return list(wanted)
    return single


def _atoms(rules: Any) -> set[tuple[Any, ...]]:
    found = set()
    for rule in rules:
        ports = (0, 0) if str(rule["protocol"]) == "-1" else (rule["fromPort"], rule["toPort"])
        head = (str(rule["protocol"]), *ports, rule.get("description") or "")
        for key in ("cidrBlocks", "ipv6CidrBlocks", "prefixListIds", "securityGroups"):
            found |= {(*head, key, peer) for peer in rule.get(key) or []}
        if rule.get("self"):
            found.add((*head, "self", True))
    return found


class _Rule(Resource):
    """A rule with an id of its own."""

    force_new = frozenset({"securityGroupId", "region"})
    updatable = frozenset({"cidrIpv4", "cidrIpv6", "description", "fromPort", "ipProtocol",
                           "prefixListId", "referencedSecurityGroupId", "toPort"})  # fmt: skip
    _egress: bool

    def create(self, call: Call, inputs: Inputs) -> str:
        client = call.client("ec2")
        authorize = (
            client.authorize_security_group_egress
            if self._egress
            else client.authorize_security_group_ingress
        )
        made = authorize(
            GroupId=inputs["securityGroupId"],
            IpPermissions=[self._permission(inputs)],
            TagSpecifications=tags.specification("security-group-rule", inputs),
        )
        return made["SecurityGroupRules"][0]["SecurityGroupRuleId"]

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        operation, field = "describe_security_group_rules", "SecurityGroupRules"
        rule = ec2.find(call, operation, field, SecurityGroupRuleIds=[rid])
        if rule is None or rule["IsEgress"] != self._egress:
            return None
        every = rule["IpProtocol"] == "-1"
        return {
            "arn": call.arn("ec2", f"security-group-rule/{rid}"),
            "securityGroupRuleId": rid,
            "securityGroupId": rule["GroupId"],
            "ipProtocol": rule["IpProtocol"],
            "fromPort": None if every else rule.get("FromPort"),
            "toPort": None if every else rule.get("ToPort"),
            "cidrIpv4": rule.get("CidrIpv4"),
            "cidrIpv6": rule.get("CidrIpv6"),
            "prefixListId": rule.get("PrefixListId"),
            "referencedSecurityGroupId": (rule.get("ReferencedGroupInfo") or {}).get("GroupId"),
            "description": rule.get("Description") or None,
            "tagsAll": shapes.tag_map(rule.get("Tags")),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        parts = change.keys - {"tags", "tagsAll"}
        if parts:
            call.client("ec2").modify_security_group_rules(
                GroupId=change.new["securityGroupId"],
                SecurityGroupRules=[
                    {"SecurityGroupRuleId": rid, "SecurityGroupRule": self._request(change.new)}
                ],
            )
        tags.sync_ec2(call, rid, change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        client = call.client("ec2")
        revoke = (
            client.revoke_security_group_egress
            if self._egress
            else client.revoke_security_group_ingress
        )
        revoke(GroupId=state["securityGroupId"], SecurityGroupRuleIds=[rid])

    def _permission(self, inputs: Inputs) -> dict[str, Any]:
        rule = self._request(inputs)
        note = {"Description": rule["Description"]} if rule.get("Description") else {}
        head = {key: rule[key] for key in ("IpProtocol", "FromPort", "ToPort") if key in rule}
        if "CidrIpv4" in rule:
            return {**head, "IpRanges": [{"CidrIp": rule["CidrIpv4"], **note}]}
        if "CidrIpv6" in rule:
            return {**head, "Ipv6Ranges": [{"CidrIpv6": rule["CidrIpv6"], **note}]}
        if "PrefixListId" in rule:
            return {**head, "PrefixListIds": [{"PrefixListId": rule["PrefixListId"], **note}]}
        return {**head, "UserIdGroupPairs": [{"GroupId": rule["ReferencedGroupId"], **note}]}

    def _request(self, inputs: Inputs) -> dict[str, Any]:
        wanted = {
            "IpProtocol": inputs["ipProtocol"],
            "FromPort": inputs.get("fromPort"),
            "ToPort": inputs.get("toPort"),
            "CidrIpv4": inputs.get("cidrIpv4"),
            "CidrIpv6": inputs.get("cidrIpv6"),
            "PrefixListId": inputs.get("prefixListId"),
            "ReferencedGroupId": inputs.get("referencedSecurityGroupId"),
            "Description": inputs.get("description"),
        }
        return {key: value for key, value in wanted.items() if value is not None}


class SecurityGroupIngressRule(_Rule):
    """A rule for what may come in."""

    pulumi_type = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
    _egress = False


class SecurityGroupEgressRule(_Rule):
    """A rule for what may go out."""

    pulumi_type = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
    _egress = True
