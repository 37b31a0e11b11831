"""User data: the cloud-config of a node, the same for the node's whole life.

It names the bucket, the node and the region and nothing else, so that no later change of the
deployment changes it: EC2 would have to stop the instance for that.
"""

from __future__ import annotations

import json
import re
from importlib import resources

LIMIT_BYTES = 16 * 1024
"""EC2 refuses user data above this, counted before base64."""

_NAMES = {
    # S3's rule for names of buckets; the others are ours and AWS'.
    "bucket": re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    "node": re.compile(r"[a-z0-9][a-z0-9-]{0,62}"),
    "region": re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]+"),
}


def render(bucket: str, node: str, region: str, *, ephemeral: bool = False) -> bytes:
    """The `#cloud-config` of one node: same input, same bytes.

    Args:
        bucket: the stack's.
        node: its name.
        region: of both.
        ephemeral: the stack has a ttl: a node that never gets an assignment, and so never learns
            of its end, powers itself off an hour after its boot. How long the ttl is stands in the
            assignment alone, so that another ttl changes nothing here.

    Raises:
        ValueError: a name has characters that it can't have, or the result is above 16 KB.
    """
    given = {"bucket": bucket, "node": node, "region": region}
    faults = [
        f"{what} {value!r} does not match {_NAMES[what].pattern}"
        for what, value in given.items()
        if not _NAMES[what].fullmatch(value)
    ]
    if faults:
        raise ValueError("user data can't be rendered: " + "; ".join(faults))
    text = "#cloud-config\nwrite_files:\n"
    text += _file("/etc/moe/node.json", json.dumps(given, sort_keys=True) + "\n", "0644")
    text += _file("/opt/moe/fetch.py", _data("fetch.py"), "0755")
    text += _file("/etc/systemd/system/moe-node.service", _data("moe-node.service"), "0644")
    # Not waiting for the agent: cloud-init's end must not hang on a bucket that can't be read.
    units = ("moe-unassigned.service", "moe-unassigned.timer") if ephemeral else ()
    for unit in units:
        text += _file(f"/etc/systemd/system/{unit}", _data(unit), "0644")
    text += "runcmd:\n  - [systemctl, daemon-reload]\n"
    for unit in units[1:]:
        text += f"  - [systemctl, enable, --now, {unit}]\n"
    text += "  - [systemctl, enable, --now, --no-block, moe-node.service]\n"
    content = text.encode()
    if len(content) > LIMIT_BYTES:
        raise ValueError(f"user data has {len(content)} bytes, EC2 takes {LIMIT_BYTES}")
    return content


def _data(name: str) -> str:
    return resources.files("node_bootstrap.files").joinpath(name).read_text()


def _file(path: str, content: str, mode: str) -> str:
    block = "".join(f"      {line}".rstrip() + "\n" for line in content.splitlines())
    return f"  - path: {path}\n    permissions: '{mode}'\n    content: |\n{block}"
