"""The AWS session of a command: the account and region that `pulumi up` of the stack goes to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import boto3

from infra import sources

if TYPE_CHECKING:
    from infra.sources import Source


def session(stack: str, region: str | None = None) -> boto3.Session:
    """Credentials and region of a stack; see `session_of`."""
    path = sources.stack_file(stack)
    return session_of(sources.read_file(path) if path.exists() else None, region)


def session_of(source: Source | None, region: str | None = None) -> boto3.Session:
    """Credentials as `aws:profile` says, else as boto3 finds them.

    Args:
        source: the stack's file; None where it has none.
        region: instead of `aws:region`, which comes before the shell's.
    """
    profile = source.profile if source else None
    region = region or (source.region if source else None)
    # Pulumi's provider reads AWS_REGION, boto3 only AWS_DEFAULT_REGION.
    return boto3.Session(profile_name=profile, region_name=region or os.environ.get("AWS_REGION"))
