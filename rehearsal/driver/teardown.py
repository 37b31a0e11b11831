"""The end of a stack, and the proof that nothing of it is left."""

from __future__ import annotations

import shutil

from infra import leftovers
from rehearsal import machine
from rehearsal.driver import account_process, recovery
from rehearsal.driver.errors import DriverError
from rehearsal.driver.pulumi import (
    stacks_with_resources,
    unfinished_marker,
)
from rehearsal.driver.session import Session
from rehearsal.paths import Home


def destroy(session: Session) -> None:
    """Destroy a stack's resources, whatever state its last run left it in, and forget the stack.

    Raises:
        DriverError: Pulumi failed, or the account still has something that carries the stack's tag.
    """
    pulumi = session.pulumi
    if recovery.needed(pulumi):
        recovery.recover(pulumi, session.aws)
    if pulumi.exists:
        marker = recovery.begin(pulumi)
        if pulumi.run("destroy", "--yes", "--skip-preview", "--refresh") != 0:
            raise DriverError(
                f"The stack {pulumi.stack} is not gone: see above. `make down` goes on from there."
            )
        # the checkout's stack file stays: `stack rm` would delete it as well
        pulumi.ask("stack", "rm", pulumi.stack, "--yes", "--preserve-config")
        marker.unlink()
    unfinished_marker(pulumi.home, pulumi.stack).unlink(missing_ok=True)
    pulumi.config_file.unlink(missing_ok=True)
    recovery.delete_unknown(pulumi.stack, session.aws, frozenset())
    left = leftovers.find(pulumi.stack, session.aws, frozenset())
    if left:
        listed = "\n".join(f"  {item.kind} {item.id} {item.name}" for item in left)
        raise DriverError(f"The account still has of the stack {pulumi.stack}:\n{listed}")
    print(f"✓ nothing in the account carries the tag moe-serving:stack={pulumi.stack}")


def end_rehearsal(home: Home) -> None:
    """Stop the account and take away all that the rehearsal put on this machine, with proof.

    A rehearsal in which another stack still has resources goes on, and that is said.

    Raises:
        DriverError: something could not be taken away; the message lists it.
    """
    others = stacks_with_resources(home)
    if others:
        print(f"The account stays: it has the stacks {', '.join(others)}.")
        return
    account_process.stop(home)
    print("✓ the account's process has ended")
    sweep(home)
    if home.root.exists():
        shutil.rmtree(home.root)
    print(f"✓ {home.root} is removed")


def sweep(home: Home) -> None:
    """Take away all that a rehearsal without an account still has on this machine, with proof.

    Raises:
        DriverError: something could not be taken away; the message lists it.
    """
    machine.sweep(home.tag)
    left = machine.leftovers(home.tag)
    if left:
        listed = "\n".join(f"  {item}" for item in left)
        raise DriverError(f"Of the rehearsal {home.tag} this machine still has:\n{listed}")
    print(f"✓ no process, mount, namespace, cgroup, link, route or nft table of {home.tag} is left")
