"""Buckets, their settings, objects: against moto's account, over gRPC."""

from __future__ import annotations

import json

import grpc
import pytest

from rehearsal.provider.wire import UNKNOWN

BUCKET = "aws:s3/bucket:Bucket"
OBJECT = "aws:s3/bucketObjectv2:BucketObjectv2"
ASSET = "c44067f5952c0a294b673a41bacd8c17"
SIGNATURE = "4dabf18193072939515e22adb298388d"


@pytest.fixture
def s3(clients):
    return clients("s3")


@pytest.fixture
def bucket(engine):
    return engine.create(BUCKET, {"forceDestroy": True}, name="Models")


def test_a_bucket_is_named_in_lower_case_and_carries_the_tags(engine, bucket, s3):
    assert bucket.id.startswith("models-")
    assert bucket.state["arn"] == f"arn:aws:s3:::{bucket.id}"
    tags = s3.get_bucket_tagging(Bucket=bucket.id)["TagSet"]
    assert tags == [{"Key": "stack", "Value": "dev"}]
    engine.delete(bucket)
    assert engine.read(bucket).id == ""


def test_a_bucket_that_holds_something_goes_only_by_force(engine, bucket, s3):
    s3.put_bucket_versioning(Bucket=bucket.id, VersioningConfiguration={"Status": "Enabled"})
    for body in (b"1", b"2"):
        s3.put_object(Bucket=bucket.id, Key="k", Body=body)
    s3.delete_object(Bucket=bucket.id, Key="k")
    careful = type(bucket)(BUCKET, bucket.id, {}, {**bucket.state, "forceDestroy": False})
    with pytest.raises(grpc.RpcError, match="BucketNotEmpty"):
        engine.delete(careful)
    engine.delete(bucket)
    assert engine.read(bucket).id == ""


def test_a_setting_that_has_a_resource_of_its_own_is_refused_on_the_bucket(engine):
    answer = engine.check(BUCKET, {"versioning": {"enabled": True}})
    assert [f.property for f in answer.failures] == ["versioning"]


SETTINGS = {
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": {
        "blockPublicAcls": True,
        "blockPublicPolicy": True,
        "ignorePublicAcls": True,
        "restrictPublicBuckets": True,
    },
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": {
        "rules": [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}]
    },
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": {
        "rules": [
            {
                "id": "old",
                "status": "Enabled",
                "filter": {"prefix": "bootstrap/"},
                "expiration": {"days": 30},
                "abortIncompleteMultipartUpload": {"daysAfterInitiation": 1},
            }
        ]
    },
    "aws:s3/bucketVersioning:BucketVersioning": {"versioningConfiguration": {"status": "Enabled"}},
}


@pytest.mark.parametrize("token", SETTINGS)
def test_a_setting_is_read_back_without_difference_and_can_go(engine, bucket, token):
    inputs = {"bucket": bucket.id, **SETTINGS[token]}
    made = engine.create(token, inputs)
    assert made.id == bucket.id
    assert not engine.diff(engine.read(made), inputs).diffs
    engine.delete(made)


def test_a_policy_is_the_same_in_any_spelling(engine, bucket):
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:*"],
        "Resource": f"arn:aws:s3:::{bucket.id}/*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    token, inputs = "aws:s3/bucketPolicy:BucketPolicy", {"bucket": bucket.id}
    made = engine.create(token, {**inputs, "policy": json.dumps(policy)})
    respelt = json.dumps({**policy, "Statement": {**statement, "Action": "s3:*"}}, indent=3)
    assert not engine.diff(engine.read(made), {**inputs, "policy": respelt}).diffs
    opened = json.dumps({**policy, "Statement": [{**statement, "Effect": "Allow"}]})
    assert list(engine.diff(made, {**inputs, "policy": opened}).diffs) == ["policy"]
    engine.delete(made)


def test_an_object_is_put_from_text_and_put_again_when_it_changes(engine, bucket, s3):
    inputs = {"bucket": bucket.id, "key": "nodes/a/assignment.json", "content": "{}"}
    made = engine.create(OBJECT, {**inputs, "contentType": "application/json"})
    assert made.state["etag"] == "99914b932bd37a50b983c5e7c90ae93b"
    planned = engine.update(made, {**inputs, "content": "[]"}, preview=True)
    assert planned.state["etag"] == UNKNOWN
    engine.update(made, {**inputs, "content": "[]"})
    assert s3.get_object(Bucket=bucket.id, Key=inputs["key"])["Body"].read() == b"[]"
    engine.delete(made)
    assert engine.read(made).id == ""


@pytest.mark.parametrize("kind", ["path", "text"])
def test_an_object_is_put_from_an_asset_and_compared_by_its_hash(
    engine, bucket, s3, tmp_path, kind
):
    file = tmp_path / "archive.pyz"
    file.write_bytes(b"\x00zip")
    what = {"path": str(file)} if kind == "path" else {"text": "plain"}
    asset = {SIGNATURE: ASSET, "hash": "aa", **what}
    inputs = {"bucket": bucket.id, "key": "k", "source": asset}
    made = engine.create(OBJECT, inputs)
    body = s3.get_object(Bucket=bucket.id, Key="k")["Body"].read()
    assert body == (b"\x00zip" if kind == "path" else b"plain")
    elsewhere = {**asset, "path": "/other/place"} if kind == "path" else asset
    assert not engine.diff(engine.read(made), {**inputs, "source": elsewhere}).diffs
    assert engine.diff(made, {**inputs, "source": {**asset, "hash": "bb"}}).diffs


def test_a_file_that_is_missing_is_named(engine, bucket):
    asset = {SIGNATURE: ASSET, "hash": "aa", "path": "/no/such/file.pyz"}
    with pytest.raises(grpc.RpcError, match=r"/no/such/file\.pyz"):
        engine.create(OBJECT, {"bucket": bucket.id, "key": "k", "source": asset})


def test_two_bodies_for_one_object_are_refused(engine, bucket):
    answer = engine.check(
        OBJECT, {"bucket": "b", "key": "k", "content": "a", "contentBase64": "YQ=="}
    )
    assert [f.property for f in answer.failures] == ["contentBase64"]
