"""The deployment record: the last resource, made only once the endpoint has answered."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
import pulumi
import pulumi_aws as aws
from botocore.exceptions import ClientError

from infra import wait
from infra.plan.plan import Group
from infra.readiness import Deployment
from node_bootstrap.jsondata import from_json

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DEPLOYMENT_KEY = "deployment.json"
WAIT_VARIABLE = "MOE_SERVING_WAIT"
"""`no` in the environment: nothing boots here, so nobody will answer and nothing is proven."""


@dataclass(frozen=True)
class RecordArgs:
    """deployment: `infra.readiness.Deployment` as JSON. ready_timeout_seconds: how long to wait."""

    bucket_name: pulumi.Input[str]
    deployment: pulumi.Input[str]
    ready_timeout_seconds: float
    profile: str | None


class Record(pulumi.ComponentResource):
    """`deployment.json`, whose hooks wait for an answer and then write `record.json`.

    Where none comes, the reason is put into the last record, as `last_failure`.

    It changes with anything that a node is made from or told, and only then is there a wait.
    """

    uri: pulumi.Output[str]

    def __init__(self, args: RecordArgs, opts: pulumi.ResourceOptions) -> None:
        super().__init__("moe-serving:record:Record", "record", None, opts)
        hook = pulumi.ResourceHook("endpoint-answers", lambda given: _endpoint_answers(args, given))
        deployment = aws.s3.BucketObjectv2(
            "deployment",
            bucket=args.bucket_name,
            key=DEPLOYMENT_KEY,
            content=args.deployment,
            content_type="application/json",
            opts=pulumi.ResourceOptions(
                parent=self,
                hooks=pulumi.ResourceHookBinding(before_create=[hook], before_update=[hook]),
            ),
        )
        # Known only after the wait, so that nobody is handed a record that isn't there.
        self.uri = record_uri(deployment.bucket)
        self._args = args
        self.register_outputs({"uri": self.uri})

    def all2all_backend(self, group: Group) -> pulumi.Input[str]:
        """The all2all backend in effect: as planned, unless nodes may fall back and did."""
        planned = group.all2all_backend.chosen
        if group.all2all_fallback is None:
            return planned
        return self.uri.apply(
            lambda uri: in_effect(read_record(uri, self._args.profile), group.primary.name, planned)
        )


def record_uri(bucket_name: pulumi.Input[str]) -> pulumi.Output[str]:
    """Where the record of a stack with this bucket is, or will be."""
    return pulumi.Output.from_input(bucket_name).apply(
        lambda bucket: f"s3://{bucket}/{wait.RECORD_KEY}"
    )


def last_failure(uri: str, profile: str | None) -> float | None:
    """When an `up` of this stack ended without an answer, whatever has answered since; None: never.

    Who previews may lack the right to read the record: then nothing is known of it, with a warning.
    """
    try:
        record = read_record(uri, profile)
    except ClientError as error:
        # Without s3:ListBucket this is also S3's answer for a record that isn't there yet.
        if error.response.get("Error", {}).get("Code") not in ("AccessDenied", "403"):
            raise
        pulumi.log.warn(f"{uri} may not be read, so whether the last `up` failed can't be told.")
        return None
    failure = record.get("last_failure") or record.get("deployment") or {}
    return failure.get("failed_at")


def read_record(uri: str, profile: str | None) -> dict[str, Any]:
    """The record as it lies in S3; empty where nothing was proven yet."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    s3 = boto3.Session(profile_name=profile).client("s3")
    try:
        return json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "NoSuchBucket"):
            return {}
        raise


def in_effect(record: dict[str, Any], primary: str, planned: str) -> str:
    """The backend that a group's primary was proven with; as planned where nothing is known."""
    told = record.get("nodes", {}).get(primary, {}).get("all2all_backend")
    return told["in_effect"] if told else planned


def _endpoint_answers(args: RecordArgs, given: pulumi.ResourceHookArgs) -> None:
    """Wait, then write down what was proven. An error here fails the update, by Pulumi's rules."""
    if os.environ.get(WAIT_VARIABLE) == "no":
        pulumi.log.warn(f"{WAIT_VARIABLE}=no: applied without an answer; no record is written.")
        return
    inputs = given.new_inputs or {}
    deployment = from_json(Deployment, str(inputs["content"]))
    s3 = boto3.Session(profile_name=args.profile, region_name=deployment.region).client("s3")
    began = time.monotonic()
    try:
        statuses = wait.until_ready(deployment, s3, args.ready_timeout_seconds, pulumi.log.info)
    except wait.NotReadyError as error:
        _put(s3, deployment, _failed(s3, deployment, str(error)))
        raise
    _put(s3, deployment, wait.record(deployment, statuses, time.monotonic() - began, time.time()))


def _failed(s3: S3Client, deployment: Deployment, reason: str) -> str:
    """The record that names the reason beside what was proven before."""
    try:
        kept = s3.get_object(Bucket=deployment.bucket, Key=wait.RECORD_KEY)["Body"].read().decode()
    except s3.exceptions.NoSuchKey:
        kept = ""
    statuses = wait.read_statuses(s3, deployment.bucket, deployment.nodes)
    return wait.failed_record(kept, deployment, statuses, reason, time.time())


def _put(s3: S3Client, deployment: Deployment, text: str) -> None:
    s3.put_object(
        Bucket=deployment.bucket,
        Key=wait.RECORD_KEY,
        Body=text.encode(),
        ContentType="application/json",
    )
