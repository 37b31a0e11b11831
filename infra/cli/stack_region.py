"""The AWS session of a command: region from the option, else the stack's file, else the shell."""

from __future__ import annotations

import os

import boto3

from infra import sources


def session(stack: str, region: str | None) -> boto3.Session:
    """Credentials as boto3 finds them; `aws:profile` is Pulumi's and not read here."""
    path = sources.stack_file(stack)
    if region is None and path.exists():
        region = sources.read_file(path).region
    # Pulumi's provider reads AWS_REGION, boto3 only AWS_DEFAULT_REGION.
    return boto3.Session(region_name=region or os.environ.get("AWS_REGION"))
