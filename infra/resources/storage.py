"""The stack's bucket with archive and model, and the stack's secrets."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pulumi
import pulumi_aws as aws

from infra.archive import BuiltArchive
from infra.plan.assignments import model_prefix
from infra.resources import policies
from node_bootstrap.assignment import Archive, WeightFile

LOG_DAYS = 30
"""How long what lies below `logs/` stays."""


@dataclass(frozen=True)
class StorageArgs:
    """What goes into the bucket, and the names of the secrets.

    model_folder: where `model_files` lie on this machine; None where the weights are in S3.
    secret_parameters: SSM parameters to make, each with a random value of its own.
    given_parameters: SSM parameter -> its value, which is the user's secret.
    """

    bucket_name: pulumi.Input[str]
    archive: BuiltArchive
    model_name: str
    model_folder: Path | None
    model_files: tuple[WeightFile, ...]
    secret_parameters: tuple[str, ...]
    given_parameters: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)


class Storage(pulumi.ComponentResource):
    """Encrypted bucket, closed to the public and to plain HTTP; goes with its content."""

    bucket_name: pulumi.Output[str]
    bucket_arn: pulumi.Output[str]
    archive: Archive
    parameters: dict[str, aws.ssm.Parameter]

    def __init__(self, args: StorageArgs, opts: pulumi.ResourceOptions) -> None:
        super().__init__("moe-serving:storage:Storage", "storage", None, opts)
        self._opts = pulumi.ResourceOptions(parent=self)
        self._bucket(args)
        self._lifecycle()
        self.archive = Archive(f"bootstrap/{args.archive.sha256}.pyz", args.archive.sha256)
        self._file("archive", self.archive.key, args.archive.path, args.archive.sha256)
        if args.model_folder is not None:
            self._model(args, args.model_folder)
        self.parameters = {name: self._secret(name) for name in args.secret_parameters}
        self.parameters |= {n: self._given(n, v) for n, v in args.given_parameters.items()}
        self.register_outputs({"bucket": self.bucket_name})

    def _bucket(self, args: StorageArgs) -> None:
        bucket = aws.s3.Bucket(
            "bucket", bucket=args.bucket_name, force_destroy=True, opts=self._opts
        )
        self.bucket_name, self.bucket_arn = bucket.bucket, bucket.arn
        aws.s3.BucketPublicAccessBlock(
            "bucket",
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=self._opts,
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            "bucket",
            bucket=bucket.id,
            rules=[
                aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
                    apply_server_side_encryption_by_default=aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                        sse_algorithm="AES256"
                    )
                )
            ],
            opts=self._opts,
        )
        aws.s3.BucketPolicy(
            "bucket",
            bucket=bucket.id,
            policy=bucket.arn.apply(policies.tls_only),
            opts=self._opts,
        )

    def _lifecycle(self) -> None:
        """What would pile up unseen: logs, and parts of uploads that were interrupted."""
        aws.s3.BucketLifecycleConfiguration(
            "bucket",
            bucket=self.bucket_name,
            rules=[
                aws.s3.BucketLifecycleConfigurationRuleArgs(
                    id="logs",
                    status="Enabled",
                    filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix="logs/"),
                    expiration=aws.s3.BucketLifecycleConfigurationRuleExpirationArgs(days=LOG_DAYS),
                ),
                aws.s3.BucketLifecycleConfigurationRuleArgs(
                    id="half-made-uploads",
                    status="Enabled",
                    filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
                    abort_incomplete_multipart_upload=aws.s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(
                        days_after_initiation=1
                    ),
                ),
            ],
            opts=self._opts,
        )

    def _model(self, args: StorageArgs, folder: Path) -> None:
        for file in args.model_files:
            self._file(
                f"model/{file.path}",
                f"{model_prefix(args.model_name)}{file.path}",
                folder / file.path,
                file.sha256 or "",
            )

    def _file(self, name: str, key: str, path: Path, sha256: str) -> None:
        aws.s3.BucketObjectv2(
            name,
            bucket=self.bucket_name,
            key=key,
            source=pulumi.FileAsset(str(path)),
            # An ETag is no digest of an encrypted or multipart object; this one is ours.
            source_hash=sha256,
            opts=self._opts,
        )

    def _secret(self, name: str) -> aws.ssm.Parameter:
        return drawn_once(name.rsplit("/", 1)[-1], name, secrets.token_urlsafe(32), self)

    def _given(self, name: str, value: pulumi.Input[str]) -> aws.ssm.Parameter:
        return aws.ssm.Parameter(
            name.rsplit("/", 1)[-1],
            name=name,
            type=aws.ssm.ParameterType.SECURE_STRING,
            value=pulumi.Output.secret(value),
            opts=self._opts,
        )


def drawn_once(name: str, parameter: str, value: str, parent: pulumi.Resource) -> aws.ssm.Parameter:
    """An SSM parameter that every run draws a value for and only the first one counts.

    That keeps it stable, and unseen by whoever reads the program.
    """
    return aws.ssm.Parameter(
        name,
        name=parameter,
        type=aws.ssm.ParameterType.SECURE_STRING,
        value=pulumi.Output.secret(value),
        opts=pulumi.ResourceOptions(parent=parent, ignore_changes=["value"]),
    )
