"""Which node this is: its place in the deployment, its instance, its boot."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from node_bootstrap import durable, jsondata
from node_bootstrap.agent.protocol import Now
from node_bootstrap.files import fetch

if TYPE_CHECKING:
    from node_bootstrap.places import Places


@dataclass(frozen=True)
class NodeConfig:
    """What user data says."""

    bucket: str
    node: str
    region: str


@dataclass(frozen=True)
class Identity:
    """A node that was replaced has another instance_id, one that was rebooted another boot_id.

    booted_at: start of this boot, seconds since the epoch.
    """

    instance_id: str
    boot_id: str
    booted_at: float


def config(places: Places) -> NodeConfig:
    """What user data says. ContractError or FileNotFoundError when it never ran here."""
    return jsondata.from_json(NodeConfig, places.config.read_bytes())


def identity(places: Places) -> Identity:
    """This node's identity; the metadata service is asked once a boot.

    Raises:
        OSError: the metadata service does not answer.
    """
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    path = places.state / "identity.json"
    saved = durable.load(path, Identity)
    if saved is not None and saved.boot_id == boot_id:
        return saved
    found = Identity(fetch.metadata("meta-data/instance-id").strip(), boot_id, booted_at())
    durable.save(path, found)
    return found


def booted_at() -> float:
    """When PID 1 began: in a container the kernel's uptime is not the node's."""
    ticks = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time() - since_boot + ticks / os.sysconf("SC_CLK_TCK")


def now() -> Now:
    """This moment. The monotonic clock goes on over restarts of the agent."""
    return Now(time.monotonic(), time.time())
