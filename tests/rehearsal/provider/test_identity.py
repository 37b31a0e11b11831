"""Roles, policies, profiles, parameters: against moto's account, over gRPC."""

from __future__ import annotations

import json

import pytest

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "ec2.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)
READ = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}],
}
ROLE = "aws:iam/role:Role"
PARAMETER = "aws:ssm/parameter:Parameter"


@pytest.fixture
def role(engine):
    return engine.create(ROLE, {"assumeRolePolicy": TRUST}, name="node")


def test_a_role_with_policy_and_profile_reads_back_without_difference(engine, role, clients):
    managed = clients("iam").create_policy(PolicyName="read", PolicyDocument=json.dumps(READ))
    assert role.id.startswith("node-")
    assert role.state["arn"].endswith(f":role/{role.id}")
    policy_inputs = {"role": role.id, "policy": json.dumps(READ)}
    policy = engine.create("aws:iam/rolePolicy:RolePolicy", policy_inputs)
    assert policy.id.startswith(f"{role.id}:")
    profile = engine.create("aws:iam/instanceProfile:InstanceProfile", {"role": role.id})
    assert profile.state["role"] == role.id
    attachment_inputs = {"role": role.id, "policyArn": managed["Policy"]["Arn"]}
    attachment = engine.create(
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment", attachment_inputs
    )
    respelt = {"role": role.id, "policy": json.dumps(READ, indent=4, sort_keys=True)}
    for made, inputs in (
        (role, {"assumeRolePolicy": TRUST}),
        (policy, respelt),
        (profile, {"role": role.id}),
        (attachment, attachment_inputs),
    ):
        assert not engine.diff(engine.read(made), inputs).diffs, made.token
    for made in (attachment, profile, policy, role):
        engine.delete(made)
        engine.delete(made)
        assert engine.read(made).id == "", made.token


def test_a_document_may_be_given_as_an_object(engine):
    full = engine.checked(ROLE, {"assumeRolePolicy": json.loads(TRUST)})
    assert json.loads(full["assumeRolePolicy"]) == json.loads(TRUST)


def test_a_profile_changes_its_role_in_place(engine, role):
    other = engine.create(ROLE, {"assumeRolePolicy": TRUST}, name="other")
    profile = engine.create("aws:iam/instanceProfile:InstanceProfile", {"role": role.id})
    assert not engine.diff(profile, {"role": other.id}).replaces
    assert engine.update(profile, {"role": other.id}).state["role"] == other.id


def test_names_fit_into_what_iam_allows(engine):
    name = engine.checked(ROLE, {"assumeRolePolicy": TRUST}, name="n" * 90)["name"]
    assert len(name) == 64


def test_a_prefix_becomes_a_name_when_the_role_is_made(engine):
    made = engine.create(ROLE, {"assumeRolePolicy": TRUST, "namePrefix": "pre-"})
    assert made.state["name"].startswith("pre-20")
    assert made.id == made.state["name"]


def test_a_parameter_is_versioned_and_its_drift_is_seen(engine, clients):
    inputs = {"name": "/p/key", "type": "SecureString", "value": "one", "description": "d"}
    made = engine.create(PARAMETER, inputs)
    assert (made.id, made.state["version"], made.state["value"]) == ("/p/key", 1, "one")
    assert not engine.diff(engine.read(made), inputs).diffs
    updated = engine.update(made, {**inputs, "value": "two"})
    assert (updated.state["version"], updated.state["value"]) == (2, "two")
    ssm = clients("ssm")
    ssm.put_parameter(Name="/p/key", Value="three", Type="SecureString", Overwrite=True)
    assert engine.read(updated).inputs["value"] == "three"
    engine.delete(updated)
    assert engine.read(updated).id == ""


def test_tags_of_a_parameter_come_and_go(engine):
    inputs = {"name": "/p/tags", "type": "String", "value": "v", "tags": {"a": "1", "b": "2"}}
    made = engine.create(PARAMETER, inputs)
    assert made.state["tagsAll"] == {"stack": "dev", "a": "1", "b": "2"}
    updated = engine.update(made, {**inputs, "tags": {"a": "3"}})
    assert updated.state["tagsAll"] == {"stack": "dev", "a": "3"}
