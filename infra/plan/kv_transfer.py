"""How prefill and decode groups hand KV over: NIXL, in the form of each vLLM release."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from infra.plan.notes import Note
from infra.plan.request import KvTransferOptions

if TYPE_CHECKING:
    from infra.catalog import Release
    from infra.plan.topology import GroupPlace, NodePlace

_KINDS_SINCE, _LEASE_SINCE, _THREADS_SINCE = (0, 24), (0, 22), (0, 12)
_POLICY_SINCE = "0.13"
_ROLES = {"prefill": "kv_producer", "decode": "kv_consumer"}
_BATCHED = ("deepep_low_latency", "nixl_ep")


@dataclass(frozen=True)
class KvTransfer:
    """How a prefill or decode group hands KV over.

    config: the JSON object of `--kv-transfer-config`. env: what this release takes that way.
    side_channel_ports: of the whole group, each on the node that has the rank.
    """

    connector: str
    backends: tuple[str, ...]
    config: dict[str, Any]
    env: dict[str, str]
    side_channel_port: int
    side_channel_ports: tuple[int, ...]
    notes: tuple[Note, ...] = ()

    @property
    def argument(self) -> str:
        """The value of `--kv-transfer-config`."""
        return json.dumps(self.config, separators=(",", ":"))


def kv_transfer(
    group: GroupPlace, options: KvTransferOptions, release: Release, all2all: str
) -> KvTransfer | None:
    """The KV transfer of a group; None for one that serves both phases.

    NIXL's own default is UCX, which has no RDMA on EFA and falls back to TCP, so LIBFABRIC must be
    named where the nodes have EFA.
    """
    if group.role not in _ROLES:
        return None
    connector, notes = _connector(options.kv_connector, release)
    efa = group.instance_type.gpu_count > 0 and group.instance_type.max_efa > 0
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
    if "kv_load_failure_policy" in release.kv_transfer_fields:
        config["kv_load_failure_policy"] = options.kv_load_failure_policy or _policy(group, all2all)
    config["kv_connector_extra_config"] = extra
    base = options.side_channel_port or release.nixl_side_channel_port
    ports = tuple(base + offset for offset in range(_side_channels(group, release)))
    notes += _left_out(options, release)
    return KvTransfer(connector, backends, config, env, base, ports, notes)


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


def _policy(group: GroupPlace, all2all: str) -> str:
    """What a decode group does when KV doesn't arrive.

    Recomputing is slow but no client sees an error. Low-latency kernels work 256 tokens a step:
    there, one recomputed prompt would stall every other request.
    """
    return "recompute" if group.role == "decode" and all2all not in _BATCHED else "fail"


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


def without_notes(transfer: KvTransfer | None) -> KvTransfer | None:
    """The transfer alone: its notes stand with the group's."""
    return replace(transfer, notes=()) if transfer else None
