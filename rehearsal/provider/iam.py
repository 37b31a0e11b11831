"""Roles, their policies, instance profiles."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

import json
from typing import Any, ClassVar
from urllib.parse import unquote

from rehearsal.provider import diff, errors, shapes
from rehearsal.provider.naming import Naming, unique_name
from rehearsal.provider.resource import MINUTE, Call, Change, Inputs, Resource, State
from rehearsal.provider.tags import difference


def _policy_text(document: Any, known: Any) -> str:
    """A policy document as the program wrote it, where it says the same as AWS's."""
    text = document if isinstance(document, str) else json.dumps(document)
    text = unquote(text) if text.startswith("%7B") else text
    return known if isinstance(known, str) and diff.same_json(known, text) else text


def _found(do: Any, **query: Any) -> dict[str, Any] | None:
    try:
        return do(**query)
    except Exception as error:
        if errors.gone(error):
            return None
        raise


def _principal_unseen(error: Exception) -> bool:
    """A role named in a trust policy that was made a moment ago is not known everywhere yet."""
    words = errors.text(error)
    return errors.code(error) == "MalformedPolicyDocument" and "Invalid principal" in words


class Role(Resource):
    """A role; its id is its name."""

    pulumi_type = "aws:iam/role:Role"
    updatable = frozenset(
        {"assumeRolePolicy", "description", "maxSessionDuration", "permissionsBoundary",
         "forceDetachPolicies"}
    )  # fmt: skip
    force_new = frozenset({"name", "namePrefix", "path"})
    computed = frozenset({"namePrefix", "inlinePolicies", "managedPolicyArns"})
    policies = frozenset({"assumeRolePolicy"})
    defaults: ClassVar = {"forceDetachPolicies": False, "maxSessionDuration": 3600, "path": "/"}
    naming = Naming(max_length=64)
    not_imported = frozenset({"namePrefix", "inlinePolicies", "managedPolicyArns"})
    unsupported = frozenset({"inlinePolicies", "managedPolicyArns"})

    def create(self, call: Call, inputs: Inputs) -> str:
        name = inputs.get("name") or unique_name(inputs["namePrefix"])
        asked: dict[str, Any] = {
            "RoleName": name,
            "AssumeRolePolicyDocument": inputs["assumeRolePolicy"],
            "Path": inputs["path"],
            "MaxSessionDuration": inputs["maxSessionDuration"],
            "Tags": shapes.tag_list(inputs.get("tagsAll") or {}),
        }
        if inputs.get("description"):
            asked["Description"] = inputs["description"]
        if inputs.get("permissionsBoundary"):
            asked["PermissionsBoundary"] = inputs["permissionsBoundary"]
        call.retry(
            lambda: call.client("iam").create_role(**asked), _principal_unseen, seconds=2 * MINUTE
        )
        return name

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        client = call.client("iam")
        answer = _found(client.get_role, RoleName=rid)
        if answer is None:
            return None
        role = answer["Role"]
        boundary = (role.get("PermissionsBoundary") or {}).get("PermissionsBoundaryArn")
        attached = client.list_attached_role_policies(RoleName=rid)["AttachedPolicies"]
        state: State = {
            "arn": role["Arn"],
            "name": role["RoleName"],
            "path": role["Path"],
            "description": role.get("Description") or None,
            "maxSessionDuration": role.get("MaxSessionDuration", 3600),
            "assumeRolePolicy": _policy_text(
                role["AssumeRolePolicyDocument"], known.get("assumeRolePolicy")
            ),
            "permissionsBoundary": boundary,
            "managedPolicyArns": [policy["PolicyArn"] for policy in attached],
            "createDate": role["CreateDate"].strftime("%Y-%m-%dT%H:%M:%SZ"),
            "uniqueId": role["RoleId"],
            "tagsAll": shapes.tag_map(role.get("Tags")),
        }
        return state if known else {**state, "forceDetachPolicies": False}

    def update(self, call: Call, rid: str, change: Change) -> None:
        client, new = call.client("iam"), change.new
        if change.any("assumeRolePolicy"):
            call.retry(
                lambda: client.update_assume_role_policy(
                    RoleName=rid, PolicyDocument=new["assumeRolePolicy"]
                ),
                _principal_unseen,
                seconds=2 * MINUTE,
            )
        if change.any("description", "maxSessionDuration"):
            client.update_role(
                RoleName=rid,
                Description=new.get("description", ""),
                MaxSessionDuration=new["maxSessionDuration"],
            )
        if change.any("permissionsBoundary"):
            boundary = new.get("permissionsBoundary")
            if boundary:
                client.put_role_permissions_boundary(RoleName=rid, PermissionsBoundary=boundary)
            else:
                client.delete_role_permissions_boundary(RoleName=rid)
        if change.any("tagsAll"):
            wanted, gone = difference(change)
            if gone:
                client.untag_role(RoleName=rid, TagKeys=gone)
            if wanted:
                client.tag_role(RoleName=rid, Tags=shapes.tag_list(wanted))

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        client = call.client("iam")
        profiles = client.list_instance_profiles_for_role(RoleName=rid)["InstanceProfiles"]
        for profile in profiles:
            client.remove_role_from_instance_profile(
                InstanceProfileName=profile["InstanceProfileName"], RoleName=rid
            )
        if state.get("forceDetachPolicies"):
            for policy in client.list_attached_role_policies(RoleName=rid)["AttachedPolicies"]:
                client.detach_role_policy(RoleName=rid, PolicyArn=policy["PolicyArn"])
            for name in client.list_role_policies(RoleName=rid)["PolicyNames"]:
                client.delete_role_policy(RoleName=rid, PolicyName=name)
        call.retry(
            lambda: client.delete_role(RoleName=rid),
            lambda error: errors.code(error) == "DeleteConflict",
            seconds=10.0,
        )


class RolePolicy(Resource):
    """A policy inside a role; its id is `role:name`."""

    pulumi_type = "aws:iam/rolePolicy:RolePolicy"
    updatable = frozenset({"policy"})
    force_new = frozenset({"name", "namePrefix", "role"})
    computed = frozenset({"namePrefix"})
    policies = frozenset({"policy"})
    naming = Naming(max_length=128)
    not_imported = frozenset({"namePrefix"})

    def create(self, call: Call, inputs: Inputs) -> str:
        name = inputs.get("name") or unique_name(inputs["namePrefix"])
        self._put(call, inputs["role"], name, inputs["policy"])
        return f"{inputs['role']}:{name}"

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        role, _, name = rid.partition(":")
        client = call.client("iam")
        answer = _found(client.get_role_policy, RoleName=role, PolicyName=name)
        if answer is None:
            return None
        policy = _policy_text(answer["PolicyDocument"], known.get("policy"))
        return {"role": role, "name": name, "policy": policy}

    def update(self, call: Call, rid: str, change: Change) -> None:
        role, _, name = rid.partition(":")
        self._put(call, role, name, change.new["policy"])

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        role, _, name = rid.partition(":")
        call.client("iam").delete_role_policy(RoleName=role, PolicyName=name)

    def _put(self, call: Call, role: str, name: str, policy: Any) -> None:
        text = policy if isinstance(policy, str) else json.dumps(policy)
        call.client("iam").put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=text)


class RolePolicyAttachment(Resource):
    """A managed policy on a role; its id is `role/arn`."""

    pulumi_type = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
    force_new = frozenset({"role", "policyArn"})

    def create(self, call: Call, inputs: Inputs) -> str:
        role, policy = inputs["role"], inputs["policyArn"]
        call.client("iam").attach_role_policy(RoleName=role, PolicyArn=policy)
        return f"{role}/{policy}"

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        role, _, policy = rid.partition("/")
        client = call.client("iam")
        answer = _found(client.list_attached_role_policies, RoleName=role)
        attached = answer["AttachedPolicies"] if answer else []
        if policy not in {entry["PolicyArn"] for entry in attached}:
            return None
        return {"role": role, "policyArn": policy}

    def update(self, call: Call, rid: str, change: Change) -> None:
        """Every input replaces it."""

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del rid
        client = call.client("iam")
        client.detach_role_policy(RoleName=state["role"], PolicyArn=state["policyArn"])


class InstanceProfile(Resource):
    """What hands a role to instances; its id is its name."""

    pulumi_type = "aws:iam/instanceProfile:InstanceProfile"
    updatable = frozenset({"role"})
    force_new = frozenset({"name", "namePrefix", "path"})
    computed = frozenset({"namePrefix"})
    defaults: ClassVar = {"path": "/"}
    naming = Naming(max_length=128)
    not_imported = frozenset({"namePrefix"})

    def create(self, call: Call, inputs: Inputs) -> str:
        name = inputs.get("name") or unique_name(inputs["namePrefix"])
        call.client("iam").create_instance_profile(
            InstanceProfileName=name,
            Path=inputs["path"],
            Tags=shapes.tag_list(inputs.get("tagsAll") or {}),
        )
        return name

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        client, wanted = call.client("iam"), inputs.get("role")
        found = call.wait(
            f"{rid} to be visible",
            lambda: _found(client.get_instance_profile, InstanceProfileName=rid),
        )
        roles = [role["RoleName"] for role in found["InstanceProfile"]["Roles"]]
        for role in roles:
            if role != wanted:
                client.remove_role_from_instance_profile(InstanceProfileName=rid, RoleName=role)
        if wanted and wanted not in roles:
            call.retry(
                lambda: client.add_role_to_instance_profile(
                    InstanceProfileName=rid, RoleName=wanted
                ),
                errors.gone,
                seconds=30.0,
            )

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        answer = _found(call.client("iam").get_instance_profile, InstanceProfileName=rid)
        if answer is None:
            return None
        profile = answer["InstanceProfile"]
        roles = profile["Roles"]
        return {
            "arn": profile["Arn"],
            "name": profile["InstanceProfileName"],
            "path": profile["Path"],
            "role": roles[0]["RoleName"] if roles else None,
            "createDate": profile["CreateDate"].strftime("%Y-%m-%dT%H:%M:%SZ"),
            "uniqueId": profile["InstanceProfileId"],
            "tagsAll": shapes.tag_map(profile.get("Tags")),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        client = call.client("iam")
        if change.any("tagsAll"):
            wanted, gone = difference(change)
            if gone:
                client.untag_instance_profile(InstanceProfileName=rid, TagKeys=gone)
            if wanted:
                client.tag_instance_profile(InstanceProfileName=rid, Tags=shapes.tag_list(wanted))

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        client = call.client("iam")
        found = client.get_instance_profile(InstanceProfileName=rid)
        for role in found["InstanceProfile"]["Roles"]:
            client.remove_role_from_instance_profile(
                InstanceProfileName=rid, RoleName=role["RoleName"]
            )
        client.delete_instance_profile(InstanceProfileName=rid)
