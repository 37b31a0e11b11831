"""How prefill and decode groups hand KV over: NIXL, in the form of each vLLM release."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from infra.plan.notes import Note
from infra.plan.request import KvTransferOptions
from node_bootstrap.assignment import PRIMARY_INTERFACE, Transfer

if TYPE_CHECKING:
    from infra.catalog import Release
    from infra.plan.topology import GroupPlace, NodePlace

_KINDS_SINCE, _LEASE_SINCE, _THREADS_SINCE = (0, 24), (0, 22), (0, 12)
_POLICY_SINCE = "0.13"
_PEERS_MAY_RESTART_SINCE = (0, 32)
_ROLES = {"prefill": "kv_producer", "decode": "kv_consumer"}
_PROGRESS_DELAY_US = "1000"
"""NIXL's progress thread polls without a pause: one core per engine, where a node has one."""


@dataclass(frozen=True)
class KvTransfer:
    """How a prefill or decode group hands KV over.

    config: the JSON object of `--kv-transfer-config`. env: what this release takes that way.
    side_channel_ports: of the whole group, each on the node that has the rank.
    transport: what the blocks cross between nodes; the nodes compare it with what NIXL says.
    restart_with_peer: a decode group starts anew after a prefill group did.
    measured: of a decode group, with each prefill group before their pair serves.
    """

    connector: str
    backends: tuple[str, ...]
    config: dict[str, Any]
    env: dict[str, str]
    side_channel_port: int
    side_channel_ports: tuple[int, ...]
    notes: tuple[Note, ...] = ()
    transport: Literal["efa", "tcp"] = "tcp"
    restart_with_peer: bool = False
    measured: Transfer | None = None

    @property
    def argument(self) -> str:
        """The value of `--kv-transfer-config`."""
        return json.dumps(self.config, separators=(",", ":"))


def kv_transfer(
    group: GroupPlace, options: KvTransferOptions, release: Release
) -> KvTransfer | None:
    """The KV transfer of a group; None for one that serves both phases.

    NIXL's own default is UCX, which has no RDMA on EFA and falls back to TCP, so LIBFABRIC must be
    named where the nodes have EFA.
    """
    if group.role not in _ROLES:
        return None
    connector, notes = _connector(options.kv_connector, release)
    efa = group.has_gpus and group.instance_type.max_efa > 0
    backends = options.backends or (("LIBFABRIC",) if efa else ("UCX",))
    extra: dict[str, Any] = {"backends": list(backends)}
    env: dict[str, str] = {}
    if options.num_threads is not None and release.series >= _THREADS_SINCE:
        extra["num_threads"] = options.num_threads
    if options.kv_lease_duration is not None:
        if release.series >= _LEASE_SINCE:
            extra["kv_lease_duration"] = options.kv_lease_duration
        else:
            env["VLLM_NIXL_ABORT_REQUEST_TIMEOUT"] = str(options.kv_lease_duration)
    config: dict[str, Any] = {"kv_connector": connector, "kv_role": _ROLES[group.role]}
    if not group.has_gpus and "kv_buffer_device" in release.kv_transfer_fields:
        config["kv_buffer_device"] = "cpu"
    if "kv_load_failure_policy" in release.kv_transfer_fields:
        # Recomputing hides a transfer that fails: the stack works, slowly, and nobody is told. A
        # failure is an HTTP 500 instead, which what stands in front may try again.
        config["kv_load_failure_policy"] = options.kv_load_failure_policy or "fail"
    config["kv_connector_extra_config"] = extra
    base = options.side_channel_port or release.nixl_side_channel_port
    ports = tuple(base + offset for offset in range(_side_channels(group, release)))
    notes += _left_out(options, release)
    return KvTransfer(
        connector,
        backends,
        config,
        env | ({} if group.has_gpus else _ucx_over_tcp()),
        base,
        ports,
        notes,
        transport="efa" if "LIBFABRIC" in backends else "tcp",
        restart_with_peer=_restart_with_peer(group, options, release),
    )


def environment(transfer: KvTransfer, node: NodePlace) -> dict[str, str]:
    """What a node's vLLM needs for it: its own address, since the default is localhost."""
    return {
        "VLLM_NIXL_SIDE_CHANNEL_HOST": node.address,
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(transfer.side_channel_port),
        **transfer.env,
    }


def _connector(name: str, release: Release) -> tuple[str, tuple[Note, ...]]:
    if name == "NixlConnector" or release.series >= _KINDS_SINCE:
        return name, ()
    if name == "NixlPullConnector":  # what NixlConnector is
        return "NixlConnector", ()
    note = Note(
        "KV_CONNECTOR_NOT_IN_RELEASE",
        "ERROR",
        f"vLLM {release.version} has no {name} (first in 0.24)",
        "kv_connector: NixlConnector",
    )
    return name, (note,)


def _left_out(options: KvTransferOptions, release: Release) -> tuple[Note, ...]:
    """A note for each option of the settings that the release's configuration has no field for."""
    missing = []
    if (
        options.kv_load_failure_policy
        and "kv_load_failure_policy" not in release.kv_transfer_fields
    ):
        missing.append(("kv_load_failure_policy", _POLICY_SINCE))
    if options.num_threads is not None and release.series < _THREADS_SINCE:
        missing.append(("num_threads", ".".join(map(str, _THREADS_SINCE))))
    return tuple(
        Note(
            "KV_TRANSFER_OPTION_NOT_IN_RELEASE",
            "WARNING",
            f"vLLM {release.version} has no {name} (first in {since}): it is left out",
            f"drop {name}, or take a release that has it",
        )
        for name, since in missing
    )


def _ucx_over_tcp() -> dict[str, str]:
    """On CPU types: TCP on the interface with the node's address, and nothing else.

    At log level info UCX names the transport of every peer: the agent reads it there.
    """
    return {
        "UCX_TLS": "tcp,self",
        "UCX_NET_DEVICES": PRIMARY_INTERFACE,
        "UCX_LOG_LEVEL": "info",
        "VLLM_NIXL_PTHR_DELAY_US": _PROGRESS_DELAY_US,
    }


def _restart_with_peer(group: GroupPlace, options: KvTransferOptions, release: Release) -> bool:
    """Whether a decode group must start anew after a prefill group did.

    Older releases crash or keep stale NIXL agents when a peer comes back (vllm#49238, #41863,
    nixl#795, vllm#58063). On CPU types 0.32 was seen to take a restarted peer; on GPUs nobody here
    has run it, so there it is restarted whatever the release.
    """
    if group.role != "decode":
        return False
    if options.restart_with_peer is not None:
        return options.restart_with_peer
    return group.has_gpus or release.series < _PEERS_MAY_RESTART_SINCE


def _side_channels(group: GroupPlace, release: Release) -> int:
    # 0.11.0: each GPU listens, at base + dp_rank * tp + tp_rank; later each rank, base + dp_rank.
    each = group.cut.tensor_parallel_size if release.version == "0.11.0" else 1
    return group.cut.data_parallel_size * each


def unused(options: KvTransferOptions) -> tuple[Note, ...]:
    """A note where a group that serves both phases has settings of KV transfer."""
    if options == KvTransferOptions():
        return ()
    message = "kv_transfer is for prefill and decode groups; this one serves both phases"
    return (Note("KV_TRANSFER_UNUSED", "WARNING", message, "drop it, or give the group a role"),)


def without_notes(transfer: KvTransfer | None, measured: Transfer | None) -> KvTransfer | None:
    """The transfer, with what is measured of it; its notes stand with the group's."""
    return replace(transfer, notes=(), measured=measured) if transfer else None
