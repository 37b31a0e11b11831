"""What the program tells the gateway before nodes end: which groups are to be let go of first.

One document of the stack's bucket. The program writes it before it replaces a group's nodes; the
gateway takes the group from its router and says in its status when the group works for nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA = 1
LEAVING_KEY = "leaving.json"
"""S3 key of a stack's `Leaving`."""


@dataclass(frozen=True)
class Leaving:
    """Groups that get no requests any more.

    groups: name -> when the life that is meant was begun (`Restart.noticed_at`): what comes after
    it is not. until: seconds since the epoch; then the document is void.
    """

    schema: int
    groups: dict[str, float]
    until: float
