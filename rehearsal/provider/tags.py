"""Tags: the program's own, the provider's defaults, and what AWS says. Pure but for `sync_ec2`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rehearsal.provider.shapes import tag_list
from rehearsal.provider.wire import UNKNOWN, has_unknown

if TYPE_CHECKING:
    from rehearsal.provider.config import ProviderConfig
    from rehearsal.provider.resource import Call, Change

Tags = Mapping[str, str]


def all_tags(own: Any, config: ProviderConfig) -> Any:
    """`tagsAll`: the defaults with the resource's own over them; unknown where a part is."""
    if has_unknown(own):
        return UNKNOWN
    return {**config.default_tags, **(own or {})}


def split(remote: Tags, known_own: Tags | None, config: ProviderConfig) -> tuple[dict, dict]:
    """(`tags`, `tagsAll`) of the tags that AWS answers.

    A tag that equals a default of the provider belongs to the defaults, unless the program
    gave it too.
    """
    seen = {key: value for key, value in remote.items() if not _ignored(key, config)}
    own = {
        key: value
        for key, value in seen.items()
        if config.default_tags.get(key) != value or key in (known_own or {})
    }
    return own, seen


def specification(kind: str, inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """TagSpecifications of a call that makes something."""
    tags = inputs.get("tagsAll") or {}
    return [{"ResourceType": kind, "Tags": tag_list(tags)}] if tags else []


def difference(change: Change) -> tuple[dict[str, str], list[str]]:
    """(tags to set, keys to remove) of an update."""
    before, after = change.old.get("tagsAll") or {}, change.new.get("tagsAll") or {}
    wanted = {key: value for key, value in after.items() if before.get(key) != value}
    return wanted or ({} if before != after else dict(after)), [k for k in before if k not in after]


def sync_ec2(call: Call, rid: str, change: Change) -> None:
    """Bring the tags of an EC2 resource to what the update asks for."""
    if "tagsAll" not in change.keys:
        return
    wanted, gone = difference(change)
    if gone:
        call.client("ec2").delete_tags(Resources=[rid], Tags=[{"Key": key} for key in gone])
    if wanted:
        call.client("ec2").create_tags(Resources=[rid], Tags=tag_list(wanted))


def _ignored(key: str, config: ProviderConfig) -> bool:
    return key in config.ignored_tags or key.startswith(("aws:", *config.ignored_tag_prefixes))
