"""A bucket's settings that are resources of their own: encryption, lifecycle and so on."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

import json
from typing import Any, ClassVar

from rehearsal.provider import diff, errors, shapes
from rehearsal.provider.resource import MINUTE, Call, Change, Inputs, Resource, State
from rehearsal.provider.s3 import bucket_state

_LOCKS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")


def _unsettled(error: Exception) -> bool:
    """A bucket that was just made, or another setting that is being changed."""
    return errors.code(error) in ("NoSuchBucket", "OperationAborted")


class _BucketSetting(Resource):
    """A setting: creating and updating are one call, its id is the bucket's name."""

    force_new = frozenset({"bucket", "region"})

    def create(self, call: Call, inputs: Inputs) -> str:
        call.retry(lambda: self._put(call, inputs), _unsettled, seconds=2 * MINUTE)
        return inputs["bucket"]

    def update(self, call: Call, rid: str, change: Change) -> None:
        del rid
        self._put(call, change.new)

    def _put(self, call: Call, inputs: Inputs) -> None:
        raise NotImplementedError

    def _api(self, call: Call, operation: str, properties: dict[str, Any]) -> dict[str, Any]:
        model = call.client("s3").meta.service_model.operation_model(operation)
        return shapes.to_api(properties, model.input_shape, _RENAMES)


_RENAMES = {
    "rules": "Rules",
    "sseAlgorithm": "SSEAlgorithm",
    "kmsMasterKeyId": "KMSMasterKeyID",
    "id": "ID",
    "ands": "And",
}


class BucketPublicAccessBlock(_BucketSetting):
    """Whether a bucket may be opened to the public at all."""

    pulumi_type = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
    updatable = frozenset({*_LOCKS})
    defaults: ClassVar = dict.fromkeys(_LOCKS, False)
    unsupported = frozenset({"skipDestroy"})

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        found = bucket_state(call, rid, "get_public_access_block")
        if found is None:
            return None
        answer = found["PublicAccessBlockConfiguration"]
        return {"bucket": rid, **{name: answer.get(_api(name), False) for name in _LOCKS}}

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        call.client("s3").delete_public_access_block(Bucket=rid)

    def _put(self, call: Call, inputs: Inputs) -> None:
        call.client("s3").put_public_access_block(
            Bucket=inputs["bucket"],
            PublicAccessBlockConfiguration={_api(name): inputs[name] for name in _LOCKS},
        )


class BucketVersioning(_BucketSetting):
    """Whether a bucket keeps old versions; deleting the setting suspends it."""

    force_new = frozenset({"bucket", "region", "expectedBucketOwner"})
    pulumi_type = "aws:s3/bucketVersioning:BucketVersioning"
    updatable = frozenset({"versioningConfiguration"})
    unsupported = frozenset({"mfa"})

    def check(self, inputs: Inputs) -> list[tuple[str, str]]:
        if (inputs.get("versioningConfiguration") or {}).get("mfaDelete") in (None, "Disabled"):
            return []
        return [("versioningConfiguration.mfaDelete", "this provider does not support MFA delete")]

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        found = bucket_state(call, rid, "get_bucket_versioning")
        if found is None:
            return None
        asked = (known.get("versioningConfiguration") or {}).get("status")
        status = found.get("Status") or (asked if asked == "Disabled" else None)
        if status is None:
            return None
        mfa = found.get("MFADelete") or None
        configuration = {"status": status, **({"mfaDelete": mfa} if mfa else {})}
        return {"bucket": rid, "versioningConfiguration": configuration}

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        if (state.get("versioningConfiguration") or {}).get("status") != "Disabled":
            suspended = {"Status": "Suspended"}
            call.client("s3").put_bucket_versioning(Bucket=rid, VersioningConfiguration=suspended)

    def _put(self, call: Call, inputs: Inputs) -> None:
        configuration = inputs["versioningConfiguration"]
        if configuration["status"] == "Disabled":
            return  # a bucket that never had versions; the API has no such request
        call.client("s3").put_bucket_versioning(
            Bucket=inputs["bucket"], VersioningConfiguration={"Status": configuration["status"]}
        )


class BucketServerSideEncryptionConfiguration(_BucketSetting):
    """How a bucket encrypts what is put into it."""

    force_new = frozenset({"bucket", "region", "expectedBucketOwner"})
    pulumi_type = (
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
    )
    updatable = frozenset({"rules"})

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        found = bucket_state(call, rid, "get_bucket_encryption")
        if found is None:
            return None
        rules = [
            shapes.from_api(rule, _RENAMES)
            for rule in found["ServerSideEncryptionConfiguration"]["Rules"]
        ]
        return {"bucket": rid, "rules": rules}

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        call.client("s3").delete_bucket_encryption(Bucket=rid)

    def _put(self, call: Call, inputs: Inputs) -> None:
        asked = {
            "bucket": inputs["bucket"],
            "serverSideEncryptionConfiguration": {"rules": inputs["rules"]},
        }
        call.client("s3").put_bucket_encryption(**self._api(call, "PutBucketEncryption", asked))


class BucketLifecycleConfiguration(_BucketSetting):
    """When objects of a bucket expire or move."""

    force_new = frozenset({"bucket", "region", "expectedBucketOwner"})
    pulumi_type = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
    updatable = frozenset({"rules", "transitionDefaultMinimumObjectSize"})
    computed = frozenset({"transitionDefaultMinimumObjectSize"})
    unsupported = frozenset({"timeouts"})

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        found = bucket_state(call, rid, "get_bucket_lifecycle_configuration")
        if found is None:
            return None
        rules = [
            {_rule_name(key): value for key, value in shapes.from_api(rule, _RENAMES).items()}
            for rule in found["Rules"]
        ]
        return {
            "bucket": rid,
            "rules": rules,
            "transitionDefaultMinimumObjectSize": found.get("TransitionDefaultMinimumObjectSize"),
        }

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        call.client("s3").delete_bucket_lifecycle(Bucket=rid)

    def _put(self, call: Call, inputs: Inputs) -> None:
        rules = [_rule(rule) for rule in inputs["rules"]]
        asked = {"bucket": inputs["bucket"], "lifecycleConfiguration": {"rules": rules}}
        size = inputs.get("transitionDefaultMinimumObjectSize")
        if size:
            asked["transitionDefaultMinimumObjectSize"] = size
        operation = "PutBucketLifecycleConfiguration"
        call.client("s3").put_bucket_lifecycle_configuration(**self._api(call, operation, asked))


def _rule(rule: Inputs) -> dict[str, Any]:
    """A rule for the API; one without a filter is for the whole bucket."""
    return {"filter": {"prefix": ""}, **rule}


def _rule_name(api: str) -> str:
    return {"iD": "id"}.get(api, api)


class BucketPolicy(_BucketSetting):
    """Who may do what with a bucket."""

    pulumi_type = "aws:s3/bucketPolicy:BucketPolicy"
    updatable = frozenset({"policy"})
    policies = frozenset({"policy"})

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        found = bucket_state(call, rid, "get_bucket_policy")
        if found is None:
            return None
        policy = found["Policy"]
        asked = known.get("policy")
        if isinstance(asked, str) and diff.same_json(asked, policy):
            policy = asked
        return {"bucket": rid, "policy": policy}

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        call.client("s3").delete_bucket_policy(Bucket=rid)

    def _put(self, call: Call, inputs: Inputs) -> None:
        policy = inputs["policy"]
        text = policy if isinstance(policy, str) else json.dumps(policy)
        # a principal that was just made is not known to S3 for some seconds
        call.retry(
            lambda: call.client("s3").put_bucket_policy(Bucket=inputs["bucket"], Policy=text),
            lambda error: (
                errors.code(error) == "MalformedPolicy"
                and "Invalid principal" in errors.text(error)
            ),
            seconds=2 * MINUTE,
        )


def _api(name: str) -> str:
    return name[0].upper() + name[1:]
