"""Objects in buckets."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, ClassVar

from rehearsal.provider import errors, shapes
from rehearsal.provider.resource import Call, Change, Inputs, Resource, State
from rehearsal.provider.wire import content_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEADERS = {
    "cacheControl": "CacheControl", "contentDisposition": "ContentDisposition",
    "contentEncoding": "ContentEncoding", "contentLanguage": "ContentLanguage",
    "contentType": "ContentType", "websiteRedirect": "WebsiteRedirectLocation",
    "storageClass": "StorageClass", "serverSideEncryption": "ServerSideEncryption",
    "kmsKeyId": "SSEKMSKeyId", "bucketKeyEnabled": "BucketKeyEnabled",
    "checksumAlgorithm": "ChecksumAlgorithm", "metadata": "Metadata", "acl": "ACL",
    "objectLockLegalHoldStatus": "ObjectLockLegalHoldStatus", "objectLockMode": "ObjectLockMode",
    "objectLockRetainUntilDate": "ObjectLockRetainUntilDate",
}  # fmt: skip
_BODY = ("source", "content", "contentBase64", "etag", "sourceHash")
_CHECKSUMS = {
    "checksumCrc32": "ChecksumCRC32", "checksumCrc32c": "ChecksumCRC32C",
    "checksumCrc64nvme": "ChecksumCRC64NVME", "checksumSha1": "ChecksumSHA1",
    "checksumSha256": "ChecksumSHA256",
}  # fmt: skip
_SINGLE_PUT_BYTES = 64 << 20


class BucketObjectv2(Resource):
    """An object; its id is its key."""

    pulumi_type = "aws:s3/bucketObjectv2:BucketObjectv2"
    updatable = frozenset({*_BODY, *_HEADERS, "forceDestroy"})
    force_new = frozenset({"bucket", "key", "region"})
    computed = frozenset(
        {"acl", "bucketKeyEnabled", "contentType", "etag", "kmsKeyId", "serverSideEncryption",
         "storageClass", "checksumAlgorithm"}
    )  # fmt: skip
    defaults: ClassVar = {"forceDestroy": False}
    unsupported = frozenset({"overrideProvider"})

    def check(self, inputs: Inputs) -> list[tuple[str, str]]:
        given = [key for key in ("source", "content", "contentBase64") if key in inputs]
        return [(key, f"{key} conflicts with {given[0]}") for key in given[1:]]

    def create(self, call: Call, inputs: Inputs) -> str:
        key = _key(inputs)
        self._put(call, key, inputs)
        return key

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        bucket, key = _address(rid, known)
        client = call.client("s3")
        try:
            head = client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        except Exception as error:
            if errors.gone(error):
                return None
            raise
        found = client.get_object_tagging(Bucket=bucket, Key=key)
        names = {**_HEADERS, **_CHECKSUMS}
        state = {name: head.get(api) for name, api in names.items() if name != "acl"}
        state.pop("checksumAlgorithm")
        return {
            **state,
            "arn": f"arn:{call.session.partition(call.region)}:s3:::{bucket}/{key}",
            "bucket": bucket,
            "key": key,
            "etag": head["ETag"].strip('"'),
            "storageClass": head.get("StorageClass", "STANDARD"),
            "versionId": head.get("VersionId"),
            "metadata": head.get("Metadata") or None,
            "tagsAll": shapes.tag_map(found["TagSet"]),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        bucket, key = _address(rid, change.new)
        if change.any(*_BODY, *(_HEADERS.keys() - {"acl"})):
            self._put(call, key, change.new)
            return
        client = call.client("s3")
        if change.any("tagsAll"):
            wanted = shapes.tag_list(change.new.get("tagsAll") or {})
            client.put_object_tagging(Bucket=bucket, Key=key, Tagging={"TagSet": wanted})
        if change.any("acl"):
            client.put_object_acl(Bucket=bucket, Key=key, ACL=change.new.get("acl", "private"))

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        bucket, key = _address(rid, state)
        client = call.client("s3")
        if not state.get("versionId"):
            client.delete_object(Bucket=bucket, Key=key)
            return
        pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=key)
        for page in pages:
            for entry in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                if entry["Key"] == key:
                    version = entry["VersionId"]
                    client.delete_object(Bucket=bucket, Key=key, VersionId=version)

    def unknown_after(self, changed: Iterable[str]) -> frozenset[str]:
        if not {*_BODY, *_HEADERS}.intersection(changed):
            return frozenset()
        unknown = {"versionId", *_CHECKSUMS}
        return frozenset(unknown if "etag" in set(changed) else {*unknown, "etag"})

    def _put(self, call: Call, key: str, inputs: Inputs) -> None:
        asked: dict[str, Any] = {
            api: inputs[name] for name, api in _HEADERS.items() if inputs.get(name) is not None
        }
        wanted = inputs.get("tagsAll") or {}
        if wanted:
            from urllib.parse import urlencode  # noqa: PLC0415 - only here

            asked["Tagging"] = urlencode(wanted)
        body = content_bytes(dict(inputs))
        if len(body) < _SINGLE_PUT_BYTES and "checksumAlgorithm" not in inputs:
            digest = hashlib.md5(body, usedforsecurity=False).digest()
            asked["ContentMD5"] = base64.b64encode(digest).decode()
        call.client("s3").put_object(Bucket=inputs["bucket"], Key=key, Body=body, **asked)


def _key(inputs: Inputs) -> str:
    return inputs["key"].lstrip("/")


def _address(rid: str, known: Inputs) -> tuple[str, str]:
    """(bucket, key); an import names both as `bucket/key` or `s3://bucket/key`."""
    if known.get("bucket"):
        return known["bucket"], _key(known) if known.get("key") else rid
    bucket, _, key = rid.removeprefix("s3://").partition("/")
    return bucket, key
