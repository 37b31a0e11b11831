"""A node that can't get what it starts from: `up` fails with the reason, the next one mends it."""

from __future__ import annotations

import json

import pytest
from rehearsed import Rehearsed

pytestmark = pytest.mark.drill


def test_a_wrong_archive_digest_fails_the_up_with_the_reason_and_the_next_up_mends_it(
    stack: Rehearsed,
) -> None:
    bucket, s3 = stack.bucket, stack.client("s3")
    archive = next(
        o["Key"] for o in s3.list_objects_v2(Bucket=bucket, Prefix="bootstrap/")["Contents"]
    )
    good = s3.get_object(Bucket=bucket, Key=archive)["Body"].read()
    stack.wait_until_ready()
    s3.put_object(Bucket=bucket, Key=archive, Body=good[:-1] + b"?")
    try:
        stack.inside("serve-0-1", "systemctl", "poweroff", "--no-block")
        stack.wait("gone", lambda: len(stack.instances()) == 1, 120)
        done = stack.run("up", check=False)
        assert done.returncode != 0
        assert "SHA-256" in done.stdout
    finally:
        s3.put_object(Bucket=bucket, Key=archive, Body=good)
        stack.run("up")
    stack.wait_until_ready()


def test_a_bucket_that_cannot_be_read_is_the_reason_given(stack: Rehearsed) -> None:
    stack.wait_until_ready()
    iam = stack.client("iam")
    roles = iam.list_roles(PathPrefix="/moe-serving/rehearsal/")["Roles"]
    role = next(r["RoleName"] for r in roles if r["RoleName"].startswith("serve-0-1"))
    deny = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::*/models/*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    stack.inside("serve-0-1", "systemctl", "poweroff", "--no-block")
    stack.wait("gone", lambda: len(stack.instances()) == 1, 120)
    iam.put_role_policy(RoleName=role, PolicyName="drill", PolicyDocument=document)
    try:
        done = stack.run("up", check=False)
        assert done.returncode != 0
        assert "AccessDenied" in done.stdout
        assert "models/" in done.stdout
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="drill")
        stack.run("up")
    stack.wait_until_ready()
