"""The contract between the program and a node: all that one node is told, one JSON document.

Written by the program to `nodes/<node>/assignment.json` of the stack's bucket, read by the node.
It holds no secret: secrets are named as SSM parameters.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Literal

from node_bootstrap import jsondata

SCHEMA = 1
PRIMARY_INTERFACE = "${PRIMARY_INTERFACE}"
"""In an environment value: the name of the interface that carries the node's address.

The plan knows the address; only the node knows how its kernel names the interface.
"""

Role = Literal["serve", "prefill", "decode"]
Position = Literal["primary", "headless", "secondary"]
"""secondary: a further node with an API of its own (hybrid and external load balancing)."""


def assignment_key(node: str) -> str:
    """S3 key of a node's assignment."""
    return f"nodes/{node}/assignment.json"


def status_key(node: str) -> str:
    """S3 key of a node's status."""
    return f"nodes/{node}/status.json"


@dataclass(frozen=True)
class Archive:
    """The bootstrap archive (a zipapp) in the stack's bucket."""

    key: str
    sha256: str


@dataclass(frozen=True)
class Member:
    """One node of the group, in rank order; the primary comes first."""

    name: str
    address: str
    position: Position
    first_rank: int
    ranks: int


@dataclass(frozen=True)
class Component:
    """One piece of software. version: exact, or a floor as `>= 580`.

    place: on the host, in the container's image, or in the virtual environment.
    """

    name: str
    version: str
    place: Literal["host", "image", "venv"]
    source: str


@dataclass(frozen=True)
class Software:
    """What must be there: distributions that `python` must have, with exact versions.

    image: of the container, where that is the runtime. components: of a GPU node, beside them.
    """

    runtime: Literal["venv", "container"]
    python: str
    distributions: dict[str, str]
    image: str | None = None
    components: tuple[Component, ...] = ()


@dataclass(frozen=True)
class WeightFile:
    """One file of the model: path below the prefix, size in bytes, SHA-256 where it is known."""

    path: str
    size_bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class Stage:
    """A Hugging Face repository that one node copies to the prefix once, for all others.

    token_parameter: SSM parameter with a token that may read it, where it is not public.
    """

    repository: str
    revision: str | None
    token_parameter: str | None
    node: str


@dataclass(frozen=True)
class Weights:
    """The model's files in S3 and the folder of the node that they go to.

    fetch: `files` those that are named, `prefix` all under the prefix, which the node lists,
        `nothing` where vLLM reads them from S3 by itself.
    stage: where they come from, if they are not in S3 yet.
    """

    bucket: str
    prefix: str
    destination: str
    files: tuple[WeightFile, ...]
    fetch: Literal["files", "prefix", "nothing"] = "files"
    stage: Stage | None = None


@dataclass(frozen=True)
class Hardware:
    """What the node must find before it serves; memory in GiB as `/proc/meminfo` counts it.

    gpu_name: as EC2 names it, such as `H200`. gpu_memory_mib: what EC2 states of one GPU.
    efa_devices: RDMA devices that the node was launched with. nvlink: every GPU reaches every other
    over NVLink. driver_min: lowest NVIDIA driver, such as `580`. local_disks: instance store.
    dcgm_level: 1 or 2 to have DCGM diagnose the GPUs before serving, 0 not to.
    """

    private_ip: str
    cpus_min: int
    memory_gib_min: float
    gpu_count: int = 0
    gpu_name: str = ""
    gpu_memory_mib: int = 0
    nvlink: bool = False
    efa_devices: int = 0
    local_disks: int = 0
    driver_min: str = ""
    dcgm_level: int = 0


@dataclass(frozen=True)
class Probe:
    """A one-token completion on every rank of the group."""

    model: str
    prompt: str
    interval_seconds: float
    timeout_seconds: float


@dataclass(frozen=True)
class Limits:
    """How long the group's protocol waits.

    start_seconds: from the start of the primary's vLLM to an answer of every rank.
    stop_seconds: from SIGTERM to SIGKILL of the role.
    silence_seconds: a peer not heard of for so long is gone.
    """

    start_seconds: float
    stop_seconds: float
    silence_seconds: float


EXTENSION_KEY = "ttl.json"
"""S3 key of a stack's `Extension`."""


@dataclass(frozen=True)
class Ttl:
    """The node ends by itself so long after its first boot, unless the bucket says later.

    key: S3 key of the `Extension`; it is there only once somebody has asked for one.
    """

    seconds: float
    key: str = EXTENSION_KEY


@dataclass(frozen=True)
class Extension:
    """Nodes of the stack go on until then, in seconds since the epoch: what `moe extend` writes."""

    schema: int
    until: float


@dataclass(frozen=True)
class Assignment:
    """All that one node is told.

    revision: digest of what the whole group must run; equal on all its members.
    argv, env: the role's process; env values may hold PRIMARY_INTERFACE.
    secret_env: environment variable -> name of the SSM parameter that holds its value.
    agent_token_parameter: SSM parameter with the token that agents show one another.
    ttl: when the node ends by itself; None: never.
    """

    schema: int
    stack: str
    region: str
    bucket: str
    node: str
    group: str
    role: Role
    position: Position
    revision: str
    archive: Archive
    members: tuple[Member, ...]
    agent_port: int
    api_port: int
    agent_token_parameter: str
    argv: tuple[str, ...]
    env: dict[str, str]
    secret_env: dict[str, str]
    software: Software
    weights: Weights
    hardware: Hardware
    probe: Probe
    limits: Limits
    ttl: Ttl | None = None

    @property
    def me(self) -> Member:
        """This node among the members."""
        return next(m for m in self.members if m.name == self.node)

    @property
    def primary(self) -> Member:
        """The primary of the group."""
        return next(m for m in self.members if m.position == "primary")

    @property
    def ranks(self) -> int:
        """Data-parallel ranks of the whole group."""
        return sum(m.ranks for m in self.members)


def revision(members: tuple[Assignment, ...]) -> str:
    """Digest (16 hex digits) of what a group must run: all its members' assignments.

    The archive is left out: a new bootstrap reaches a node without restarting its vLLM. So is the
    end: a node that lives longer runs the same. So is all that holds its default: a program that
    knows more restarts nothing that does not use it.
    """
    digest = hashlib.sha256()
    for member in sorted(members, key=lambda m: m.node):
        plain = dataclasses.replace(member, revision="", archive=Archive("", ""), ttl=None)
        digest.update(jsondata.to_json(plain, without_defaults=True).encode())
    return digest.hexdigest()[:16]


def with_revision(members: tuple[Assignment, ...]) -> tuple[Assignment, ...]:
    """The same assignments, each with the revision of their group."""
    digest = revision(members)
    return tuple(dataclasses.replace(m, revision=digest) for m in members)
