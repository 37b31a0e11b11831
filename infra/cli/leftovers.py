"""`moe leftovers`: what the account still has of a stack."""

from __future__ import annotations

import typer

from infra import leftovers
from infra.cli.stack_session import session as session_of


def run(stack: str, region: str | None, *, delete: bool, yes: bool) -> int:
    """List, and delete where asked. Returns the exit status: 1 if something is left."""
    session = session_of(stack, region)
    found = leftovers.find(stack, session)
    if not found:
        print(f"Nothing in {session.region_name} belongs to the stack {stack}.")
        return 0
    for item in found:
        print(f"{item.kind:20} {item.id:50} {'' if item.name == item.id else item.name}".rstrip())
    if not delete:
        print(
            f"{len(found)} things of the stack {stack}. While it is up, this is the stack itself; "
            "what is there after `pulumi destroy` is forgotten and billed: --delete removes it."
        )
        return 1
    if not yes and not typer.confirm(
        f"Delete these {len(found)} things, whether or not the stack {stack} is in use?"
    ):
        return 1
    refused = leftovers.delete(found, session)
    for item, reason in refused.items():
        print(f"still there: {item.kind} {item.id}: {reason}")
    return 1 if refused else 0
