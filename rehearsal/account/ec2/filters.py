"""EC2's filters on our own records. Pure."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, TypeVar

from rehearsal.account.ec2.errors import refuse
from rehearsal.account.ec2.models import Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

R = TypeVar("R", bound=Record)


def matching(records: Sequence[R], filters: Mapping[str, Sequence[str]]) -> list[R]:
    """The records that match every filter; values may hold * and ?.

    Raises:
        EC2ClientError: InvalidParameterValue for a filter that the records do not have.
    """
    return [r for r in records if all(_matches(r, n, v) for n, v in filters.items())]


def _matches(record: Record, name: str, values: Sequence[str]) -> bool:
    tags = {t["key"]: t["value"] for t in record.get_tags()}
    if name.startswith("tag:"):
        have = [tags[name[4:]]] if name[4:] in tags else []
    elif name == "tag-key":
        have = list(tags)
    else:
        field = name.replace("-", "_")
        if not hasattr(record, field):
            raise refuse("InvalidParameterValue", f"The filter '{name}' is invalid")
        have = [str(getattr(record, field))]
    return any(fnmatch.fnmatchcase(h, v) for h in have for v in values)
