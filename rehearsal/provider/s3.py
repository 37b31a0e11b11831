"""Buckets."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

from typing import Any, ClassVar

from rehearsal.provider import errors, shapes
from rehearsal.provider.naming import Naming, unique_name
from rehearsal.provider.resource import MINUTE, Call, Change, Inputs, Resource, State, Timeouts

# https://docs.aws.amazon.com/general/latest/gr/s3.html#s3_website_region_endpoints
_HOSTED_ZONES = {
    "us-east-1": "Z3AQBSTGFYJSTF", "us-east-2": "Z2O1EMRO9K5GLX", "us-west-1": "Z2F56UZL2M1ACD",
    "us-west-2": "Z3BJ6K6RIION7M", "eu-west-1": "Z1BKCTXD74EZPE", "eu-west-2": "Z3GKZC51ZF0DB4",
    "eu-central-1": "Z21DNDUVLTQW6Q", "eu-north-1": "Z3BAZG2TWCNX0D",
    "ap-northeast-1": "Z2M4EHUR26P7ZW", "ap-south-1": "Z11RGJOFQNVJUP",
}  # fmt: skip
_KEYS_PER_CALL = 1000


class Bucket(Resource):
    """A general purpose bucket. With `forceDestroy`, deleting it deletes what is in it."""

    pulumi_type = "aws:s3/bucket:Bucket"
    updatable = frozenset({"forceDestroy"})
    force_new = frozenset({"bucket", "bucketPrefix", "objectLockEnabled", "region"})
    computed = frozenset({"bucket", "bucketPrefix", "objectLockEnabled", "requestPayer"})
    defaults: ClassVar = {"forceDestroy": False}
    naming = Naming(key="bucket", prefix_key="bucketPrefix", max_length=63, lower_case=True)
    not_imported = frozenset({"bucketPrefix"})
    unsupported = frozenset(
        {"accelerationStatus", "acl", "corsRules", "grants", "lifecycleRules", "logging",
         "objectLockConfiguration", "policy", "replicationConfiguration", "requestPayer",
         "serverSideEncryptionConfiguration", "versioning", "website", "bucketNamespace"}
    )  # fmt: skip
    timeouts = Timeouts(create=20 * MINUTE, delete=60 * MINUTE)

    def create(self, call: Call, inputs: Inputs) -> str:
        name = inputs.get("bucket") or unique_name(inputs["bucketPrefix"])[:63]
        asked: dict[str, Any] = {"Bucket": name}
        if call.region != "us-east-1":
            # us-east-1 refuses to be named: it is the API's default
            asked["CreateBucketConfiguration"] = {"LocationConstraint": call.region}
        if inputs.get("objectLockEnabled"):
            asked["ObjectLockEnabledForBucket"] = True
        call.retry(
            lambda: call.client("s3").create_bucket(**asked),
            lambda error: errors.code(error) == "OperationAborted",
            seconds=2 * MINUTE,
        )
        return name

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        wanted, now = inputs.get("tagsAll") or {}, _bucket_tags(call, rid)
        if wanted != now:
            _put_bucket_tags(call, rid, wanted)

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        client = call.client("s3")
        try:
            client.head_bucket(Bucket=rid)
        except Exception as error:
            if errors.gone(error):
                return None
            raise
        suffix = "amazonaws.com"
        state: State = {
            "arn": f"arn:{call.session.partition(call.region)}:s3:::{rid}",
            "bucket": rid,
            "bucketDomainName": f"{rid}.s3.{suffix}",
            "bucketRegion": call.region,
            "bucketRegionalDomainName": f"{rid}.s3.{call.region}.{suffix}",
            "hostedZoneId": _HOSTED_ZONES.get(call.region),
            "tagsAll": _bucket_tags(call, rid),
        }
        if not known:
            state["forceDestroy"] = False
        return state

    def update(self, call: Call, rid: str, change: Change) -> None:
        """Tags are the only thing AWS is told; `finish` brings them up to date."""

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        client = call.client("s3")
        try:
            client.delete_bucket(Bucket=rid)
        except Exception as error:
            if errors.code(error) != "BucketNotEmpty" or not state.get("forceDestroy"):
                raise
            _empty(call, rid)
            client.delete_bucket(Bucket=rid)


def bucket_state(call: Call, bucket: str, operation: str, **query: Any) -> dict[str, Any] | None:
    """One of a bucket's configurations, None where it or the bucket doesn't exist."""
    try:
        return getattr(call.client("s3"), operation)(Bucket=bucket, **query)
    except Exception as error:
        missing = {"ServerSideEncryptionConfigurationNotFoundError"}
        if errors.gone(error) or errors.code(error) in missing:
            return None
        raise


def _bucket_tags(call: Call, bucket: str) -> dict[str, str]:
    found = bucket_state(call, bucket, "get_bucket_tagging")
    return shapes.tag_map(found["TagSet"]) if found else {}


def _put_bucket_tags(call: Call, bucket: str, wanted: dict[str, str]) -> None:
    client = call.client("s3")
    if wanted:
        client.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": shapes.tag_list(wanted)})
    else:
        client.delete_bucket_tagging(Bucket=bucket)


def _empty(call: Call, bucket: str) -> None:
    """Delete all versions and delete markers: AWS deletes empty buckets only."""
    client = call.client("s3")
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
        entries = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        keys = [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in entries]
        for start in range(0, len(keys), _KEYS_PER_CALL):
            part = {"Objects": keys[start : start + _KEYS_PER_CALL], "Quiet": True}
            answer = client.delete_objects(Bucket=bucket, Delete=part)
            for failure in answer.get("Errors", []):
                msg = f"can't delete {failure['Key']} in {bucket}: {failure['Code']}"
                raise OSError(msg)
