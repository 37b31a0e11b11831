"""The contract between the program and a node: all that one node is told, one JSON document.

Written by the program to `nodes/<node>/assignment.json` of the stack's bucket, read by the node.
It holds no secret: secrets are named as SSM parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from node_bootstrap.ttl import Ttl

SCHEMA = 1
PRIMARY_INTERFACE = "${PRIMARY_INTERFACE}"
"""In an environment value: the name of the interface that carries the node's address.

The plan knows the address; only the node knows how its kernel names the interface.
"""

Role = Literal["serve", "prefill", "decode"]
NodeRole = Literal["serve", "prefill", "decode", "gateway"]
Target = Literal["serve", "image"]
"""image: have the software, forget what is this node's own, and power off to be imaged."""
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
class Api:
    """One API of a group that has several: `ranks` from first_rank on, which it counts from 0."""

    address: str
    port: int
    first_rank: int
    ranks: int


@dataclass(frozen=True)
class Component:
    """One piece of software. version: exact, or a floor as `>= 580`.

    place: on the host, in the container's image, or in the virtual environment.
    sha256: of what is downloaded from `source`; empty where its maker states none.
    """

    name: str
    version: str
    place: Literal["host", "image", "venv"]
    source: str
    sha256: str = ""


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
class Backend:
    """The all2all backend of the role, where it needs a library.

    module: what Python imports for it. fallback: backend to start with where the library is
    missing or broken; empty to refuse to start.
    """

    name: str
    module: str
    fallback: str = ""


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


WHEELS_PREFIX = "wheels/"
"""S3 prefix of wheels that one node of a stack built, for those after it."""

KERNELS_PREFIX = "caches/"
"""S3 prefix of kernels that one group of a stack compiled, for those after it."""


@dataclass(frozen=True)
class KernelCache:
    """Compiled kernels in the bucket. max_bytes: a larger entry is neither kept nor taken."""

    key: str
    max_bytes: int


@dataclass(frozen=True)
class KvTransfer:
    """How a prefill or decode group hands KV over; vLLM has the same in its arguments.

    backends: of NIXL, one of which must carry the blocks. transport: what they must cross.
    side_channel_port: rank r's handshakes are answered on its node at this port + r.
    restart_with_peer: the group starts anew after a group that it took KV from did.
    """

    connector: str
    backends: tuple[str, ...]
    transport: Literal["efa", "tcp"]
    side_channel_port: int
    restart_with_peer: bool


TransferMode = Literal["measure", "require"]


@dataclass(frozen=True)
class Transfer:
    """A measured transfer between the nodes of a group, once for the same nodes and software.

    mode: require: below a floor nothing starts; measure: it is told, nothing more.
    floors: what is measured -> GB/s (10^9 bytes) below which it goes a wrong way; None: not judged.
    provider, nics: NCCL's log must name them; empty and 0 where there is no NCCL.
    nixl: its backends, which must carry; none where NIXL is not measured. gpus: of each node.
    largest_bytes: of one rank's buffer. limit_seconds: until all must be done.
    """

    mode: TransferMode
    floors: dict[str, float | None]
    provider: str = ""
    nics: int = 0
    nixl: tuple[str, ...] = ()
    gpus: int = 0
    largest_bytes: int = 16 << 20
    limit_seconds: float = 120.0
    port: int = 29511


@dataclass(frozen=True)
class GatewayGroup:
    """One replica of a group, as the gateway routes to it.

    urls: of its APIs, `http://address:port`. members: all its nodes, the primary first.
    transfer: measured between a node of a prefill and one of this decode group, before the pair
    serves; None: nothing is.
    """

    name: str
    role: Role
    urls: tuple[str, ...]
    ranks: int
    members: tuple[Member, ...]
    kv_transfer: KvTransfer | None = None
    transfer: Transfer | None = None


@dataclass(frozen=True)
class GatewayKey:
    """One API key, by the digest of it alone.

    expires_at: ISO 8601 with an offset; refused from then on. models: that it may ask for; None:
    all. requests_per_minute: None: as many as come.
    """

    name: str
    sha256: str
    expires_at: str | None = None
    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None


@dataclass(frozen=True)
class GatewayTls:
    """names: DNS names and addresses of the certificate. issuer: who signs it."""

    names: tuple[str, ...]
    issuer: Literal["internal", "acme"]


@dataclass(frozen=True)
class GatewayLimits:
    """What a request may cost before it is refused.

    body_bytes: of the request. request_seconds: to the first byte of the answer.
    wait_seconds, waiting_requests: while no router can take requests, so many wait for so long.
    drain_seconds: how long a router that was replaced may end what it has begun.
    retries: how often a request that was not yet answered in part is sent again.
    """

    body_bytes: int
    request_seconds: float
    wait_seconds: float
    waiting_requests: int
    drain_seconds: float
    retries: int = 2


@dataclass(frozen=True)
class Gateway:
    """What the gateway runs. port: the one that clients reach.

    router_argv: without addresses, which follow from the groups that are proven.
    tls: None: plain HTTP. ca_key: S3 key that the certificate of the gateway's own authority
    is put to. packages: Debian packages that must be there -> version, `*` for any.
    """

    port: int
    groups: tuple[GatewayGroup, ...]
    keys: tuple[GatewayKey, ...]
    router_argv: tuple[str, ...]
    tls: GatewayTls | None
    ca_key: str
    packages: dict[str, str]
    limits: GatewayLimits


@dataclass(frozen=True)
class Assignment:
    """All that one node is told.

    revision: digest of what the whole group must run; equal on all its members.
    argv, env: the role's process; env values may hold PRIMARY_INTERFACE.
    secret_env: environment variable -> name of the SSM parameter that holds its value.
    agent_token_parameter: SSM parameter with the token that agents show one another.
    ttl: when the node ends by itself; None: never.
    kv_transfer: of a prefill or decode group. gateway: of the gateway, which has a role of its own.
    backend: None where vLLM's own communication serves.
    target: what the node is for. One that becomes an image may lack the GPUs that it installs for.
    transfer: measured between the group's nodes before vLLM starts; None: nothing is.
    takes_turns: a new revision takes over only with the leave of the gateway.
    apis: of the group, where it has more than the primary's, which serves all ranks.
    kernel_cache: None where vLLM compiles nothing.
    """

    schema: int
    stack: str
    region: str
    bucket: str
    node: str
    group: str
    role: NodeRole
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
    kv_transfer: KvTransfer | None = None
    gateway: Gateway | None = None
    backend: Backend | None = None
    target: Target = "serve"
    transfer: Transfer | None = None
    takes_turns: bool = False
    apis: tuple[Api, ...] = ()
    kernel_cache: KernelCache | None = None

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
