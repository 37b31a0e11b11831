"""Names by which a stack's things are found again, without any state."""

from __future__ import annotations

STACK_TAG = "moe-serving:stack"
NODE_TAG = "moe-serving:node"


def bucket_name(stack: str, account_id: str) -> str:
    """The stack's bucket: names of buckets are one space for the whole world."""
    return f"moe-serving-{stack}-{account_id}"


def parameter_path(stack: str) -> str:
    """Path of the stack's SSM parameters, with a slash at its end."""
    return f"/moe-serving/{stack}/"


def iam_path(stack: str) -> str:
    """Path of the stack's roles and instance profiles: IAM lists by path, not by tag."""
    return f"/moe-serving/{stack}/"
