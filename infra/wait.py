"""Waits until a deployment answers, and writes down what was proven. A thin edge over S3."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.readiness import Deployment, Failed, Ready, Waiting, judge
from node_bootstrap.assignment import status_key
from node_bootstrap.jsondata import ContractError, from_json
from node_bootstrap.status import Status

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RECORD_KEY = "record.json"
POLL_SECONDS = 1.0
STILL_WAITING_SECONDS = 30.0
FAILURE_HOLDS_SECONDS = 8.0
"""A failure must be reported for so long: one from before this update ends when the node reads
its new assignment, which takes it a few seconds."""
READERS = 16


class NotReadyError(RuntimeError):
    """The deployment does not answer: why, as the nodes tell it, and what to do."""


@dataclasses.dataclass(frozen=True)
class Clock:
    """Time, so that tests need not wait."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def until_ready(
    deployment: Deployment,
    s3: S3Client,
    timeout_seconds: float,
    say: Callable[[str], None],
    clock: Clock | None = None,
) -> dict[str, Status]:
    """Poll the nodes' statuses until every rank has answered; say each change of phase.

    Returns:
        node -> the status that proved it.

    Raises:
        NotReadyError: a node or group failed for good, or the time was up.
    """
    clock = clock or Clock()
    began = said_at = healthy_at = turn_at = clock.monotonic()
    last: dict[str, str] = {}
    queued: tuple[str, ...] = ()
    while True:
        statuses = read_statuses(s3, deployment.bucket, deployment.nodes)
        verdict = judge(deployment, statuses)
        spent = clock.monotonic() - began
        if isinstance(verdict, Ready):
            say(f"{deployment.endpoint} answers on every rank ({spent:.0f} s)")
            return statuses
        if isinstance(verdict, Failed):
            if clock.monotonic() - healthy_at >= FAILURE_HOLDS_SECONDS:
                raise NotReadyError(failure(deployment, verdict))
            clock.sleep(POLL_SECONDS)
            continue
        healthy_at = clock.monotonic()
        if verdict.queued != queued:
            # Each group that takes its turn has the time that one alone would have.
            queued, turn_at = verdict.queued, healthy_at
        if _kinds(verdict) != last or clock.monotonic() - said_at > STILL_WAITING_SECONDS:
            say(f"{progress(verdict)} ({spent:.0f} s)")
            last, said_at = _kinds(verdict), clock.monotonic()
        if healthy_at - turn_at > timeout_seconds:
            raise NotReadyError(
                f"{deployment.stack}: no answer after {spent:.0f} s (moe-serving:ready_timeout). "
                f"Last seen: {progress(verdict)}. The nodes go on trying: `moe status --watch` "
                "shows how far they are, and the next `pulumi up` waits again."
            )
        clock.sleep(POLL_SECONDS)


def read_statuses(s3: S3Client, bucket: str, nodes: Iterable[str]) -> dict[str, Status]:
    """The last status of each node that has reported one in the present form."""
    names = list(nodes)
    with ThreadPoolExecutor(min(READERS, max(1, len(names)))) as pool:
        found = pool.map(lambda name: _read_status(s3, bucket, name), names)
    return {name: status for name, status in zip(names, found, strict=True) if status}


def record(
    deployment: Deployment, statuses: dict[str, Status], waited_seconds: float, now: float
) -> str:
    """The deployment record as JSON: what was proven, when, and what was found on the way."""
    document = {
        "schema": 1,
        "proven_at": now,
        "waited_seconds": round(waited_seconds, 1),
        "deployment": dataclasses.asdict(deployment),
        "nodes": {name: _proof(status) for name, status in statuses.items()},
        "groups": {
            name: dataclasses.asdict(report)
            for name, group in deployment.groups.items()
            if (report := statuses[group.nodes[0]].group)
        },
        **_gateway(deployment, statuses),
    }
    return json.dumps(document, sort_keys=True, indent=1) + "\n"


def failed_record(
    last: str, deployment: Deployment, statuses: dict[str, Status], reason: str, now: float
) -> str:
    """The last record with the reason why what is asked for now doesn't answer.

    Args:
        last: the record as it is; empty where there is none.
        deployment: what was asked for.
        statuses: of its nodes, as far as they reported.
        reason: as the update's error says it.
        now: seconds since the epoch.
    """
    failure = {
        "failed_at": now,
        "reason": reason,
        "revisions": {name: group.revision for name, group in deployment.groups.items()},
        **_gateway(deployment, statuses),
    }
    document = {"schema": 1, **(json.loads(last) if last else {}), "last_failure": failure}
    return json.dumps(document, sort_keys=True, indent=1) + "\n"


def _gateway(deployment: Deployment, statuses: dict[str, Status]) -> dict[str, Any]:
    """Which groups are in, and what moved through each pair."""
    status = statuses.get(deployment.gateway.node) if deployment.gateway else None
    if status is None or status.gateway is None:
        return {}
    told = dataclasses.asdict(status.gateway)
    return {"gateway": {name: told[name] for name in ("serving", "why", "groups", "pairs")}}


def _proof(status: Status) -> dict[str, Any]:
    return {
        "instance_id": status.instance_id,
        "boot_id": status.boot_id,
        "found": dataclasses.asdict(status.found),
        "experts_per_rank": {str(e.ep_rank): list(e.local) for e in status.found.experts},
        "step_seconds": {step.name: step.seconds for step in status.steps},
        "step_outcomes": {step.name: step.outcome for step in status.steps},
        "boot_to_agent_seconds": round(max(0.0, status.agent_started_at - status.booted_at), 1),
        "generation": status.generation,
        "all2all_backend": dataclasses.asdict(status.backend) if status.backend else None,
    }


def _read_status(s3: S3Client, bucket: str, node: str) -> Status | None:
    """None where the node has not reported, or speaks an earlier form that it will replace."""
    try:
        body = s3.get_object(Bucket=bucket, Key=status_key(node))["Body"].read()
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
            return None
        raise NotReadyError(f"s3://{bucket}/{status_key(node)} can't be read: {error}") from error
    except BotoCoreError as error:
        raise NotReadyError(f"s3://{bucket} can't be reached: {error}") from error
    try:
        return from_json(Status, body)
    except ContractError:
        return None


def progress(waiting: Waiting) -> str:
    """What is waited for, in one line."""
    by_phase: dict[str, list[str]] = {}
    for node, phase in waiting.phases.items():
        by_phase.setdefault(phase, []).append(node)
    return "; ".join(f"{_few(nodes)}: {phase}" for phase, nodes in by_phase.items())


def _kinds(waiting: Waiting) -> dict[str, str]:
    """The phases without how far each is, which changes all the time."""
    return {node: phase.partition(": ")[0] for node, phase in waiting.phases.items()}


def _few(nodes: list[str]) -> str:
    return ", ".join(nodes) if len(nodes) <= 4 else f"{nodes[0]} … {nodes[-1]} ({len(nodes)} nodes)"


def failure(deployment: Deployment, failed: Failed) -> str:
    """Why a deployment does not answer, with the logs that show it."""
    lines = [f"{deployment.stack} does not answer:"]
    lines += [f"  - {reason}" for reason in failed.reasons]
    for node, tail in failed.log_tails.items():
        lines.append(f"  log of {node}, its end:")
        lines += [f"    {line}" for line in tail.splitlines()[-25:]]
    if failed.queued:
        they = "goes on" if len(failed.queued) == 1 else "go on"
        lines.append(
            f"{', '.join(failed.queued)} {they} with what was there before: no group takes its "
            "turn while another is down."
        )
    lines.append("Mend the cause and run `pulumi up` again: what is made already is kept.")
    return "\n".join(lines)
