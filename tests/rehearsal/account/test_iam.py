"""IAM on the real endpoint: signatures, identity policies, bucket policies."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

BUCKET = "policies"
TRUST_EC2 = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"Service": "ec2.amazonaws.com"},
        }
    ],
}
NODE_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject"],
            "Resource": f"arn:aws:s3:::{BUCKET}/a/*",
        },
        {
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": f"arn:aws:s3:::{BUCKET}",
            "Condition": {"StringLike": {"s3:prefix": "a/*"}},
        },
        {
            "Effect": "Allow",
            "Action": "ssm:GetParameter",
            "Resource": "arn:aws:ssm:us-east-1:123456789012:parameter/a/*",
        },
    ],
}
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"}


@pytest.fixture(scope="module")
def stage(account):
    """A bucket and parameters with things that the node's role may and may not read."""
    s3, ssm, iam = (account.client(s) for s in ("s3", "ssm", "iam"))
    s3.create_bucket(Bucket=BUCKET)
    for key in ("a/1", "b/1"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    for name in ("/a/t", "/b/t"):
        ssm.put_parameter(Name=name, Value="v", Type="String")
    iam.create_user(UserName="node")
    iam.put_user_policy(UserName="node", PolicyName="p", PolicyDocument=json.dumps(NODE_POLICY))
    key = iam.create_access_key(UserName="node")["AccessKey"]
    credentials = {
        "aws_access_key_id": key["AccessKeyId"],
        "aws_secret_access_key": key["SecretAccessKey"],
    }
    return {
        service: account.client(service, credentials) for service in ("s3", "ssm", "ec2", "sts")
    }


CALLS = {
    "get inside": (True, "s3", "get_object", {"Bucket": BUCKET, "Key": "a/1"}),
    "get outside": (False, "s3", "get_object", {"Bucket": BUCKET, "Key": "b/1"}),
    "put inside": (True, "s3", "put_object", {"Bucket": BUCKET, "Key": "a/2", "Body": b"y"}),
    "put outside": (False, "s3", "put_object", {"Bucket": BUCKET, "Key": "b/2", "Body": b"y"}),
    "delete inside, not allowed": (False, "s3", "delete_object", {"Bucket": BUCKET, "Key": "a/1"}),
    "list inside": (True, "s3", "list_objects_v2", {"Bucket": BUCKET, "Prefix": "a/"}),
    "list outside": (False, "s3", "list_objects_v2", {"Bucket": BUCKET, "Prefix": "b/"}),
    "list everything": (False, "s3", "list_objects_v2", {"Bucket": BUCKET}),
    "copy from outside": (
        False,
        "s3",
        "copy_object",
        {"Bucket": BUCKET, "Key": "a/3", "CopySource": {"Bucket": BUCKET, "Key": "b/1"}},
    ),
    "parameter inside": (True, "ssm", "get_parameter", {"Name": "/a/t"}),
    "parameter outside": (False, "ssm", "get_parameter", {"Name": "/b/t"}),
    "several parameters, one outside": (
        False,
        "ssm",
        "get_parameters",
        {"Names": ["/a/t", "/b/t"]},
    ),
    "describe instances": (False, "ec2", "describe_instances", {}),
    "terminate": (False, "ec2", "terminate_instances", {"InstanceIds": ["i-0123456789abcdef0"]}),
    "who am I": (True, "sts", "get_caller_identity", {}),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_policy_allows_what_it_names_and_nothing_else(stage, case, refusal):
    allowed, service, operation, request = CALLS[case]
    call = getattr(stage[service], operation)
    if allowed:
        call(**request)
    else:
        assert refusal(lambda: call(**request)) in DENIED


def test_deleting_several_objects_is_decided_key_by_key(account, stage):
    iam = account.client("iam")
    allow = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "s3:DeleteObject",
                "Resource": f"arn:aws:s3:::{BUCKET}/a/*",
            }
        ],
    }
    iam.put_user_policy(UserName="node", PolicyName="d", PolicyDocument=json.dumps(allow))
    account.client("s3").put_object(Bucket=BUCKET, Key="a/gone", Body=b"x")
    objects = {"Objects": [{"Key": "a/gone"}, {"Key": "b/1"}]}
    answer = stage["s3"].delete_objects(Bucket=BUCKET, Delete=objects)
    iam.delete_user_policy(UserName="node", PolicyName="d")
    assert [d["Key"] for d in answer["Deleted"]] == ["a/gone"]
    assert [(e["Key"], e["Code"]) for e in answer["Errors"]] == [("b/1", "AccessDenied")]


def test_a_bucket_that_demands_tls_is_not_locked_for_the_rehearsals_http_endpoint(account):
    s3 = account.client("s3")
    s3.create_bucket(Bucket="tls")
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": ["arn:aws:s3:::tls", "arn:aws:s3:::tls/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }
    s3.put_bucket_policy(Bucket="tls", Policy=json.dumps(policy))
    s3.put_object(Bucket="tls", Key="k", Body=b"x")
    assert s3.get_object(Bucket="tls", Key="k")["Body"].read() == b"x"


def test_a_bucket_policy_denies_the_principal_that_it_names_alone(account, stage, refusal):
    s3 = account.client("s3")
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Action": "s3:GetObject",
                "Resource": f"arn:aws:s3:::{BUCKET}/*",
                "Principal": {"AWS": "arn:aws:iam::123456789012:user/node"},
            }
        ],
    }
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
    assert refusal(lambda: stage["s3"].get_object(Bucket=BUCKET, Key="a/1")) == "AccessDenied"
    assert s3.get_object(Bucket=BUCKET, Key="a/1")["Body"].read() == b"x"
    s3.delete_bucket_policy(Bucket=BUCKET)


def test_unknown_keys_and_wrong_secrets_are_refused(account, refusal):
    unknown = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "x"}
    wrong = {"aws_access_key_id": account.endpoint["access_key_id"], "aws_secret_access_key": "x"}
    assert refusal(account.client("s3", unknown).list_buckets) == "InvalidAccessKeyId"
    assert refusal(account.client("s3", wrong).list_buckets) == "SignatureDoesNotMatch"
    assert refusal(account.client("ec2", wrong).describe_vpcs) == "AuthFailure"


@pytest.mark.parametrize("path", ["policies/a/1", "policies", ""])
def test_requests_without_a_signature_are_denied_with_s3s_xml(account, stage, path):
    with pytest.raises(urllib.error.HTTPError) as denied:
        urllib.request.urlopen(f"{account.endpoint['url']}/{path}", timeout=30)
    assert denied.value.code == 403
    assert b"<Code>AccessDenied</Code>" in denied.value.read()


def test_presigned_urls_are_denied_with_s3s_xml(account, stage):
    url = account.client("s3").generate_presigned_url(
        "get_object", Params={"Bucket": BUCKET, "Key": "a/1"}
    )
    with pytest.raises(urllib.error.HTTPError) as denied:
        urllib.request.urlopen(url, timeout=30)
    assert denied.value.code == 403
    assert b"<Code>AccessDenied</Code>" in denied.value.read()


def test_a_role_that_trusts_ec2_alone_cannot_be_assumed_by_the_admin(account, refusal):
    account.client("iam").create_role(
        RoleName="ec2-only", AssumeRolePolicyDocument=json.dumps(TRUST_EC2)
    )

    def assume():
        return account.client("sts").assume_role(
            RoleArn="arn:aws:iam::123456789012:role/ec2-only", RoleSessionName="me"
        )

    assert refusal(assume) == "AccessDenied"


def test_a_role_that_trusts_the_account_gives_credentials_with_its_own_policy(account, refusal):
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Principal": {"AWS": "arn:aws:iam::123456789012:root"},
            }
        ],
    }
    iam = account.client("iam")
    iam.create_role(RoleName="reader", AssumeRolePolicyDocument=json.dumps(trust))
    session = account.client("sts").assume_role(
        RoleArn="arn:aws:iam::123456789012:role/reader", RoleSessionName="me"
    )["Credentials"]
    credentials = {
        "aws_access_key_id": session["AccessKeyId"],
        "aws_secret_access_key": session["SecretAccessKey"],
        "aws_session_token": session["SessionToken"],
    }
    identity = account.client("sts", credentials).get_caller_identity()
    assert identity["Arn"] == "arn:aws:sts::123456789012:assumed-role/reader/me"
    assert refusal(account.client("s3", credentials).list_buckets) == "AccessDenied"
