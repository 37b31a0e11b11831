"""What a node reports to `nodes/<node>/status.json`: read by the program, `moe status`, tests.

Times are seconds since the epoch (UTC) unless the name says `_seconds` (a duration).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SCHEMA = 1

NodePhase = Literal["bootstrap", "hardware", "software", "weights", "role", "image", "failed"]
"""`role`: the steps are done, the agent runs the group's protocol. `image`: the steps are done, the
node clears itself and powers off. `failed`: needs a person.
"""

GroupPhase = Literal["gathering", "stopping", "measuring", "starting", "ready", "backing-off"]
MemberPhase = Literal["preparing", "stopped", "starting", "running", "failed", "silent"]
Outcome = Literal["SKIPPED", "NOCHANGE", "CHANGED", "FAILED"]

HardwareAction = Literal["OK", "MONITOR", "RESET", "REBOOT", "ISOLATE"]
"""What the hardware gate asks for, from nothing to another node; the worst finding decides."""


@dataclass(frozen=True)
class HardwareFinding:
    """One thing that is not as it should be. device: a PCI address, a unit, or empty."""

    rule: str
    action: HardwareAction
    device: str
    what: str


@dataclass(frozen=True)
class HardwareReport:
    """What the gate decided at its last look: `action` is the one taken, escalation included."""

    action: HardwareAction
    findings: tuple[HardwareFinding, ...] = ()


@dataclass(frozen=True)
class BackendReport:
    """The all2all backend that vLLM is started with, and why it is another than planned."""

    planned: str
    in_effect: str
    why: str = ""


@dataclass(frozen=True)
class StepReport:
    """One step of the last pass: what it did, how long it took, one sentence, when it began."""

    name: str
    outcome: Outcome
    seconds: float
    detail: str
    began_at: float = 0.0


@dataclass(frozen=True)
class BootReport:
    """The first pass of a boot that got to the role, and the start of the agent that made it."""

    boot_id: str
    agent_started_at: float
    steps: tuple[StepReport, ...]


@dataclass(frozen=True)
class Experts:
    """Which experts one rank of this node holds, read from vLLM's own log."""

    ep_rank: int
    ep_size: int
    local: tuple[int, ...]
    total: int


@dataclass(frozen=True)
class Found:
    """What the node found on itself.

    kv_transport: what carries KV, by the role's own words (`UCX tcp/ens5`).
    """

    hostname: str = ""
    cpus: int = 0
    memory_gib: float = 0.0
    addresses: tuple[str, ...] = ()
    interface: str = ""
    distributions: dict[str, str] | None = None
    all2all_backend: str | None = None
    experts: tuple[Experts, ...] = ()
    kv_transport: str | None = None


@dataclass(frozen=True)
class Fault:
    """The last fault: when it was noticed, what it was, the end of the role's log."""

    at: float
    what: str
    generation: int
    log_tail: str = ""


@dataclass(frozen=True)
class ProbeReport:
    """The last answer of one rank."""

    rank: int
    text: str
    seconds: float
    at: float


@dataclass(frozen=True)
class MemberReport:
    """How the primary sees one member.

    kv_fault: why its KV or its experts' tokens don't move as planned; empty where they do.
    """

    name: str
    instance_id: str
    boot_id: str
    phase: MemberPhase
    generation: int
    heard_at: float
    kv_fault: str = ""


@dataclass(frozen=True)
class Restart:
    """Why a generation was begun; ready_at stays null until every rank of it answered."""

    generation: int
    revision: str
    cause: str
    noticed_at: float
    ready_at: float | None = None


@dataclass(frozen=True)
class TransferItem:
    """One measured transfer. gb_per_second: 10^9 bytes. floor: None: told, not judged.

    payload_bytes: of one rank's buffer. times: how often it was moved.
    """

    name: str
    gb_per_second: float
    floor: float | None
    payload_bytes: int
    times: int


@dataclass(frozen=True)
class TransferReport:
    """What the nodes of a group measured between them before vLLM started.

    key: of the nodes and the software that it is about. network: what NCCL used, by its own words.
    nics: that it found on the node that found the fewest; None where it doesn't say.
    faults: what is not as planned, one sentence each, with the node's name and the number.
    """

    key: str
    at: float
    seconds: float
    required: bool
    items: tuple[TransferItem, ...] = ()
    network: str = ""
    nics: int | None = None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupReport:
    """The group as its primary holds it; only in the primary's status.

    waiting_for: why this generation has not been started yet, one sentence each.
    kv_fault: the same of the primary itself as of its members.
    transfer: None where nothing was measured.
    wants: the revision that all members are prepared for and that waits for the gateway's leave.
    """

    revision: str
    generation: int
    phase: GroupPhase
    since: float
    members: tuple[MemberReport, ...]
    probes: tuple[ProbeReport, ...] = ()
    restarts: tuple[Restart, ...] = ()
    waiting_for: tuple[str, ...] = ()
    kv_fault: str = ""
    transfer: TransferReport | None = None
    wants: str = ""


@dataclass(frozen=True)
class RoutedGroup:
    """One group as the gateway sees it. routed: the router has it. why: what keeps it out.

    drained: it was let go of (`node_bootstrap.leaving`), and works for nobody any more.
    """

    name: str
    role: str
    revision: str
    generation: int
    routed: bool
    why: str = ""
    drained: bool = False


@dataclass(frozen=True)
class Change:
    """One change of what the router has: who was in after it, and what brought it."""

    at: float
    routed: tuple[str, ...]
    cause: str


@dataclass(frozen=True)
class PairReport:
    """A whole completion through one prefill and one decode group, and what it moved.

    prefill, decode: `group revision/generation`, the lives that it is about. failures: how many
    trials of these lives failed in a row, this one the last. transfer: measured with NIXL between
    a node of each; None: nothing was.
    """

    prefill: str
    decode: str
    ok: bool
    reason: str
    seconds: float
    bytes_moved: int
    external_hits: int
    failed_transfers: int
    at: float
    failures: int = 0
    transfer: TransferReport | None = None


@dataclass(frozen=True)
class GatewayReport:
    """The gateway as its agent holds it; only in the gateway's status.

    serving: a completion came through front, key check, router and engine. why: what is missing.
    units: systemd unit -> state. certificate: PEM of the authority that clients need; empty
    where a public one signs, or without TLS.
    """

    serving: bool
    since: float
    why: str
    groups: tuple[RoutedGroup, ...]
    units: dict[str, str]
    pairs: tuple[PairReport, ...] = ()
    changes: tuple[Change, ...] = ()
    certificate: str = ""


@dataclass(frozen=True)
class Sign:
    """A line of the running vLLM's log that is a symptom. at: when it was first read."""

    symptom: str
    line: str
    at: float


@dataclass(frozen=True)
class EngineMetrics:
    """vLLM's metrics that can be a symptom, by name: the largest value over all engines."""

    at: float
    largest: dict[str, float]


@dataclass(frozen=True)
class Status:
    """One node's report. `running`: its vLLM runs, for (revision, generation).

    ends_at: when the node powers itself off; None where nothing ends it. doing: what a step that
    takes its time is at, one sentence. signs: of the running vLLM, one line for each symptom.
    metrics: of the primary, when a rank last owed an answer; None where none did in this life.
    boot: None until the role is reached; steps and agent_started_at are of the last pass.
    """

    schema: int
    node: str
    instance_id: str
    boot_id: str
    updated_at: float
    phase: NodePhase
    steps: tuple[StepReport, ...] = ()
    archive_sha256: str = ""
    revision: str = ""
    generation: int = 0
    running: bool = False
    found: Found = Found()
    fault: Fault | None = None
    group: GroupReport | None = None
    booted_at: float = 0.0
    agent_started_at: float = 0.0
    ends_at: float | None = None
    gateway: GatewayReport | None = None
    hardware: HardwareReport | None = None
    backend: BackendReport | None = None
    doing: str = ""
    signs: tuple[Sign, ...] = ()
    metrics: EngineMetrics | None = None
    boot: BootReport | None = None
