"""What an interrupted run left behind, and its repair: locks, steps half done, orphans."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3

from infra import leftovers
from rehearsal.driver.errors import DriverError
from rehearsal.driver.pulumi import Pulumi, unfinished_marker

REFRESH = ("refresh", "--yes", "--skip-preview", "--clear-pending-creates")


def needed(pulumi: Pulumi) -> bool:
    """Tell whether the last operation on the stack did not reach a good end."""
    return unfinished_marker(pulumi.home, pulumi.stack).exists() or bool(pulumi.locks())


def recover(pulumi: Pulumi, session: boto3.Session) -> None:
    """Bring a stack whose last operation broke off to a state that `up` and `destroy` accept.

    A killed engine leaves its lock and the steps that it had begun. The lock is removed, a refresh
    settles what became of the steps, and what was created but not written down is deleted: Pulumi
    can never know it, and its fixed names would stand in the way of the next run.

    Raises:
        DriverError: another run is at work on the stack, or Pulumi could not refresh.
    """
    if not pulumi.exists:
        delete_unknown(pulumi.stack, session, frozenset())
        return
    pulumi.unlock()
    deployment = pulumi.deployment()
    if deployment.get("pending_operations"):
        print("The last run broke off; asking the account what became of its last steps.")
        if pulumi.run(*REFRESH) != 0:
            raise DriverError(
                f"The state of the stack {pulumi.stack} could not be refreshed: see above."
            )
        deployment = pulumi.deployment()
    delete_unknown(pulumi.stack, session, known_ids(deployment))


def known_ids(deployment: Mapping[str, Any]) -> frozenset[str]:
    """Return the ids of all resources that a stack's state has."""
    resources = deployment.get("resources") or []
    return frozenset(str(resource["id"]) for resource in resources if resource.get("id"))


def delete_unknown(stack: str, session: boto3.Session, known: frozenset[str]) -> None:
    """Delete what carries the stack's tag in the account but isn't in its state.

    Args:
        stack: the stack's name, as in the tag.
        session: credentials and region of the account.
        known: the ids in the state.

    Raises:
        DriverError: something could not be deleted; with what AWS said.
    """
    orphans = leftovers.find(stack, session, known)
    if not orphans:
        return
    print("The account has things of this stack that are not in its state:")
    refused = leftovers.delete(orphans, session)
    if refused:
        listed = "\n".join(f"  {item.kind} {item.id}: {why}" for item, why in refused.items())
        raise DriverError(
            f"These could not be deleted:\n{listed}\nDelete them yourself and run it again."
        )


def begin(pulumi: Pulumi) -> Path:
    """Note that an operation starts; the returned file is to be removed at its good end."""
    marker = unfinished_marker(pulumi.home, pulumi.stack)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()
    return marker
