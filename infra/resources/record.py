"""The deployment record: the last resource, made only once the endpoint has answered."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import boto3
import pulumi
import pulumi_aws as aws

from infra import wait
from infra.readiness import Deployment
from node_bootstrap.jsondata import from_json

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
        self.uri = deployment.bucket.apply(lambda bucket: f"s3://{bucket}/{wait.RECORD_KEY}")
        self.register_outputs({"uri": self.uri})


def _endpoint_answers(args: RecordArgs, given: pulumi.ResourceHookArgs) -> None:
    """Wait, then write down what was proven. An error here fails the update, by Pulumi's rules."""
    if os.environ.get(WAIT_VARIABLE) == "no":
        pulumi.log.warn(f"{WAIT_VARIABLE}=no: applied without an answer; no record is written.")
        return
    inputs = given.new_inputs or {}
    deployment = from_json(Deployment, str(inputs["content"]))
    s3 = boto3.Session(profile_name=args.profile, region_name=deployment.region).client("s3")
    began = time.monotonic()
    statuses = wait.until_ready(deployment, s3, args.ready_timeout_seconds, pulumi.log.info)
    s3.put_object(
        Bucket=deployment.bucket,
        Key=wait.RECORD_KEY,
        Body=wait.record(deployment, statuses, time.monotonic() - began, time.time()).encode(),
        ContentType="application/json",
    )
