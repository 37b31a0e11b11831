"""Which assignments a group runs, as one short digest: equal on all its members."""

from __future__ import annotations

import dataclasses
import hashlib

from node_bootstrap import jsondata
from node_bootstrap.assignment import Archive, Assignment


def revision(members: tuple[Assignment, ...]) -> str:
    """Digest (16 hex digits) of what a group must run: all its members' assignments.

    The archive is left out: a new bootstrap reaches a node without restarting its vLLM. So is the
    end: a node that lives longer runs the same, and so does one that takes turns. So is all that
    holds its default: a program that knows more restarts nothing that does not use it.
    """
    digest = hashlib.sha256()
    for member in sorted(members, key=lambda m: m.node):
        plain = dataclasses.replace(
            member, revision="", archive=Archive("", ""), ttl=None, takes_turns=False
        )
        digest.update(jsondata.to_json(plain, without_defaults=True).encode())
    return digest.hexdigest()[:16]


def with_revision(members: tuple[Assignment, ...]) -> tuple[Assignment, ...]:
    """The same assignments, each with the revision of their group."""
    digest = revision(members)
    return tuple(dataclasses.replace(m, revision=digest) for m in members)
