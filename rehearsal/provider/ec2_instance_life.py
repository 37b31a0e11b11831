"""Following an instance's state."""

from __future__ import annotations

from typing import Any

from rehearsal.provider import ec2, errors
from rehearsal.provider.resource import MINUTE, Call, ProviderError

PROPAGATION_SECONDS = 2 * MINUTE
"""How long IAM may take until EC2 sees what was made there."""


def find(call: Call, rid: str) -> dict[str, Any] | None:
    """The instance as EC2 describes it, None where there is none."""
    found = ec2.find(call, "describe_instances", "Reservations", InstanceIds=[rid])
    return found["Instances"][0] if found and found["Instances"] else None


def started(call: Call, rid: str) -> dict[str, Any] | None:
    """The instance once it has left `pending`; one that ended instead is an error."""
    instance = find(call, rid)
    state = instance["State"]["Name"] if instance else "pending"
    if instance and state in ("shutting-down", "terminated"):
        reason = (instance.get("StateReason") or {}).get("Message", "no reason given")
        msg = f"unexpected state '{state}', wanted 'running': {reason}"
        raise ProviderError(msg)
    return None if state == "pending" else instance


def in_state(call: Call, rid: str, state: str) -> bool | None:
    """True once it is in that state."""
    instance = find(call, rid)
    return True if instance and instance["State"]["Name"] == state else None


def is_gone(call: Call, rid: str) -> bool | None:
    """True once it is terminated."""
    instance = find(call, rid)
    return True if instance is None or instance["State"]["Name"] == "terminated" else None


def profile_unseen(error: Exception) -> bool:
    """IAM needs some seconds until EC2 sees a new profile, or a role in it.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html#troubleshoot_general_eventual-consistency
    """
    words = errors.text(error)
    return errors.code(error) in (
        "InvalidParameterValue",
        "InvalidIamInstanceProfile.NotFound",
    ) and (
        "Invalid IAM Instance Profile" in words
        or " has no associated IAM Roles" in words
        or errors.code(error).endswith("NotFound")
    )
