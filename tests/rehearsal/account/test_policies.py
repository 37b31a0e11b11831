"""IAM's evaluation of policies. Pure."""

from __future__ import annotations

import pytest

from rehearsal.account.iam.conditions import conditions_hold
from rehearsal.account.iam.policies import Caller, Question, decide, evaluate
from rehearsal.account.iam.resources import ec2_resources, s3_action, ssm_resources

NODE = Caller(
    "arn:aws:sts::123456789012:assumed-role/node/i-1",
    "123456789012",
    "arn:aws:iam::123456789012:role/node",
)
OBJECT = "arn:aws:s3:::b/nodes/serve-0-0/status.json"


def allow(action="s3:*", resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action="s3:*", resource="*", **more):
    return {**allow(action, resource, **more), "Effect": "Deny"}


def ask(action="s3:PutObject", resource=OBJECT, **context):
    return Question(action, resource, {k.replace("_", ":"): [v] for k, v in context.items()})


def test_what_no_policy_allows_is_denied():
    assert not decide([], [], ask(), NODE)


def test_an_allow_of_the_callers_own_is_enough():
    assert decide([allow("s3:PutObject", "arn:aws:s3:::b/nodes/*")], [], ask(), NODE)


def test_a_deny_wins_over_every_allow():
    assert not decide([allow()], [deny("s3:Put*", Principal="*")], ask(), NODE)


def test_a_bucket_policy_may_allow_what_the_callers_own_does_not():
    bucket = [allow(Principal={"AWS": NODE.role_arn})]
    assert decide([], bucket, ask(), NODE)


def test_the_account_as_principal_of_an_allow_leaves_it_to_the_callers_own_policies():
    bucket = [allow(Principal={"AWS": "arn:aws:iam::123456789012:root"})]
    assert not decide([], bucket, ask(), NODE)


def test_a_deny_for_another_role_does_not_concern_the_caller():
    bucket = [deny(Principal={"AWS": "arn:aws:iam::123456789012:role/other"})]
    assert decide([allow()], bucket, ask(), NODE)


def test_not_principal_denies_everybody_else():
    bucket = [deny(NotPrincipal={"AWS": NODE.role_arn})]
    other = Caller("arn:aws:iam::123456789012:user/u", "123456789012")
    assert decide([allow()], bucket, ask(), NODE)
    assert not decide([allow()], bucket, ask(), other)


def test_a_deny_without_tls_does_not_hit_a_request_over_tls():
    tls = [deny(Principal="*", Condition={"Bool": {"aws:SecureTransport": "false"}})]
    assert decide([allow()], tls, ask(aws_securetransport="true"), NODE)
    assert not decide([allow()], tls, ask(aws_securetransport="false"), NODE)


def test_not_action_and_not_resource_mean_everything_else():
    statement = {"Effect": "Allow", "NotAction": "iam:*", "NotResource": "arn:aws:s3:::secret/*"}
    assert evaluate([statement], ask()) == "allow"
    assert evaluate([statement], ask("iam:CreateUser", "*")) == "silent"
    assert evaluate([statement], ask(resource="arn:aws:s3:::secret/k")) == "silent"


def test_policy_variables_are_replaced_and_an_unknown_one_matches_nothing():
    mine = allow(resource="arn:aws:s3:::b/${aws:username}/*")
    question = Question("s3:GetObject", "arn:aws:s3:::b/me/k", {"aws:username": ["me"]})
    assert evaluate([mine], question) == "allow"
    assert evaluate([mine], Question("s3:GetObject", "arn:aws:s3:::b//k", {})) == "silent"


def test_an_unknown_operator_counts_against_the_caller():
    strange = {"Condition": {"StringRhymesWith": {"aws:username": "me"}}}
    assert evaluate([allow(**strange)], ask()) == "silent"
    assert evaluate([deny(**strange)], ask()) == "deny"


def test_actions_match_without_regard_to_case_and_dots_are_no_wildcards():
    assert evaluate([allow("S3:putobject")], ask()) == "allow"
    assert evaluate([allow(resource="arn:aws:s3:::b/nodes/serve-0-0/statusXjson")], ask()) == (
        "silent"
    )


CONDITIONS = [
    ({"StringEquals": {"k": ["a", "b"]}}, {"k": ["b"]}, True),
    ({"StringEquals": {"k": "a"}}, {}, False),
    ({"StringEqualsIfExists": {"k": "a"}}, {}, True),
    ({"StringNotEquals": {"k": "a"}}, {"k": ["b"]}, True),
    ({"StringNotEquals": {"k": ["a", "b"]}}, {"k": ["b"]}, False),
    ({"StringNotEquals": {"k": "a"}}, {}, True),
    ({"StringLike": {"s3:prefix": "a/*"}}, {"s3:prefix": ["a/b"]}, True),
    ({"StringLike": {"s3:prefix": "a/*"}}, {"s3:prefix": ["b/"]}, False),
    ({"StringLike": {"k": "[a]"}}, {"k": ["a"]}, False),
    ({"ArnLike": {"k": "arn:aws:iam::*:role/n*"}}, {"k": ["arn:aws:iam::1:role/node"]}, True),
    ({"ArnLike": {"k": "arn:aws:*"}}, {"k": ["arn:aws:iam::1:role/node"]}, False),
    ({"Bool": {"aws:SecureTransport": True}}, {"aws:securetransport": ["true"]}, True),
    ({"Null": {"k": "true"}}, {}, True),
    ({"Null": {"k": "true"}}, {"k": ["x"]}, False),
    ({"IpAddress": {"k": "10.0.0.0/8"}}, {"k": ["10.1.2.3"]}, True),
    ({"NotIpAddress": {"k": "10.0.0.0/8"}}, {"k": ["10.1.2.3"]}, False),
    ({"NumericLessThanEquals": {"s3:max-keys": "10"}}, {"s3:max-keys": ["10"]}, True),
    ({"DateGreaterThan": {"k": "2026-01-01T00:00:00Z"}}, {"k": ["2026-06-01T00:00:00Z"]}, True),
    ({"ForAnyValue:StringEquals": {"k": "a"}}, {"k": ["a", "b"]}, True),
    ({"ForAllValues:StringEquals": {"k": "a"}}, {"k": ["a", "b"]}, False),
    ({"ForAllValues:StringEquals": {"k": "a"}}, {}, True),
    ({"StringEquals": {"k": "a", "l": "b"}}, {"k": ["a"], "l": ["c"]}, False),
    ({"Unheard": {"k": "a"}}, {"k": ["a"]}, None),
]


@pytest.mark.parametrize(("condition", "context", "held"), CONDITIONS)
def test_a_condition_is_met_or_not(condition, context, held):
    assert conditions_hold(condition, context) is held


@pytest.mark.parametrize(
    ("method", "query", "has_key", "action"),
    [
        ("GET", [], True, "s3:GetObject"),
        ("HEAD", [], False, "s3:ListBucket"),
        ("GET", ["list-type", "prefix"], False, "s3:ListBucket"),
        ("PUT", ["publicAccessBlock"], False, "s3:PutBucketPublicAccessBlock"),
        ("GET", ["encryption"], False, "s3:GetEncryptionConfiguration"),
        ("PUT", ["uploadId", "partNumber"], True, "s3:PutObject"),
        ("DELETE", ["versionId"], True, "s3:DeleteObjectVersion"),
        ("PUT", [], False, "s3:CreateBucket"),
    ],
)
def test_an_s3_request_needs_the_action_that_s3_documents(method, query, has_key, action):
    assert s3_action(method, query, has_key=has_key) == action


def test_run_instances_needs_permission_on_what_it_names_and_makes():
    flat = {"ImageId": "ami-1", "NetworkInterface.1.SubnetId": "subnet-1"}
    prefix = "arn:aws:ec2:us-east-1:123456789012:"
    assert ec2_resources("RunInstances", flat, "us-east-1", "123456789012") == [
        "arn:aws:ec2:us-east-1::image/ami-1",
        f"{prefix}subnet/subnet-1",
        f"{prefix}instance/*",
        f"{prefix}network-interface/*",
        f"{prefix}volume/*",
    ]


def test_ssm_parameters_are_named_by_name_names_path_or_arn():
    prefix = "arn:aws:ssm:r:1:parameter/"
    assert ssm_resources({"Name": "/a/b:3"}, "r", "1") == [f"{prefix}a/b"]
    assert ssm_resources({"Names": ["/a", f"{prefix}c"]}, "r", "1") == [f"{prefix}a", f"{prefix}c"]
    assert ssm_resources({"Path": "/a/"}, "r", "1") == [f"{prefix}a"]
    assert ssm_resources({}, "r", "1") == ["*"]
