"""New nodes group by group: who waits for whom where a stack that answers gets other nodes."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import boto3
import pulumi
from botocore.exceptions import BotoCoreError, ClientError

from infra import turns, wait
from infra.names import bucket_name
from infra.plan.plan import Group, Plan
from infra.readiness import Deployment, Failed, Waiting
from infra.resources.expected import expected
from infra.resources.record import DEPLOYMENT_KEY, WAIT_VARIABLE
from node_bootstrap.assignment import Assignment
from node_bootstrap.jsondata import ContractError, from_json, to_json
from node_bootstrap.leaving import LEAVING_KEY

POLL_SECONDS = 2.0
HEARD_SECONDS = 60.0
"""Until a gateway has let go of a group: one of an earlier version never does."""


@dataclass(frozen=True)
class RollingArgs:
    """What is known before anything is made. timeout_seconds: for each group."""

    plan: Plan
    region: str
    profile: str | None
    timeout_seconds: float


class Rolling:
    """The order of a stack's groups, and the hooks that keep to it.

    At a first creation there is none: everything starts at once. Nor is there one where nothing
    has answered yet, where each role has one group, and without a gateway.
    """

    def __init__(self, args: RollingArgs) -> None:
        """Look whether the stack answers already, where that matters."""
        self._args, self.plan = args, args.plan
        roles = Counter(group.role for group in args.plan.groups)
        idle = pulumi.runtime.is_dry_run() or os.environ.get(WAIT_VARIABLE) == "no"
        several = args.plan.gateway is not None and max(roles.values()) > 1
        self._before = self._deployed() if several and not idle else None

    def order(self) -> list[list[Group]]:
        """Groups that are made together, before those after them in the list."""
        groups = list(self._args.plan.groups)
        if self._before is None:
            return [groups]
        known = self._before.groups
        # Pairs of prefill and decode groups change over one by one; new groups wait for nobody.
        ranked = sorted(groups, key=lambda g: (g.replica, g.role == "decode", g.name))
        new = [group for group in ranked if group.name not in known]
        return [part for part in (new, *([g] for g in ranked if g.name in known)) if part]

    def hooks(
        self,
        group: Group,
        told: pulumi.Output[dict[str, Assignment]],
        instances: Mapping[str, pulumi.Output[str]],
    ) -> pulumi.ResourceHookBinding | None:
        """What holds the nodes of a group back until the others serve without it.

        Args:
            group: whose nodes they are.
            told: every node's assignment.
            instances: node -> instance id, of the groups before it.
        """
        if self._before is None or group.name not in self._before.groups:
            return None
        known = dict(instances)

        async def others_serve(_: pulumi.ResourceHookArgs) -> None:
            ids = {name: str(await output.future()) for name, output in known.items()}
            assignments = await told.future()
            turn = self._turn(group, assignments or {}, ids)
            await asyncio.to_thread(self.wait, turn)
            await asyncio.to_thread(self.let_go, turn)

        hook = pulumi.ResourceHook(f"turn-of-{group.name}", others_serve)
        return pulumi.ResourceHookBinding(before_update=[hook])

    def _turn(
        self, group: Group, told: Mapping[str, Assignment], ids: Mapping[str, str]
    ) -> turns.Turn:
        plan, known = self._args.plan, self._before.groups if self._before else {}
        gateway = plan.gateway.node if plan.gateway else ""
        peers = [g.name for g in plan.groups if g.role == group.role and g.name in known]
        return turns.Turn(
            group=group.name,
            peers=tuple(name for name in peers if name != group.name),
            earlier=_earlier(plan, told, ids, self._before),
            gateway=gateway,
            primary=group.primary.name,
        )

    def wait(self, turn: turns.Turn) -> None:
        """Poll until the turn may begin. NotReadyError where it will not come."""
        s3, began, said = self._s3(), time.monotonic(), ""
        names = [*turn.earlier.nodes, turn.gateway]
        failing_since = None
        while True:
            verdict = turns.decide(turn, wait.read_statuses(s3, turn.earlier.bucket, names))
            now = time.monotonic()
            if isinstance(verdict, turns.May):
                return
            if isinstance(verdict, Failed):
                failing_since = failing_since or now
                if now - failing_since >= wait.FAILURE_HOLDS_SECONDS:
                    queued = (*verdict.queued, turn.group)
                    raise wait.NotReadyError(
                        wait.failure(turn.earlier, replace(verdict, queued=queued))
                    )
            else:
                failing_since, said = None, self._say(turn, verdict, said)
                if now - began > self._args.timeout_seconds:
                    raise wait.NotReadyError(
                        f"{turn.group} keeps its nodes: after {now - began:.0f} s still "
                        f"{wait.progress(verdict)}. Mend that, or what was changed, and run "
                        "`pulumi up` again: it goes on from there."
                    )
            time.sleep(POLL_SECONDS)

    def let_go(self, turn: turns.Turn) -> None:
        """Have the gateway send the group nothing more, and wait until it works for nobody."""
        s3, bucket, began = self._s3(), turn.earlier.bucket, time.monotonic()
        names = [turn.gateway, turn.primary]
        gateway = self.plan.gateway
        drain = HEARD_SECONDS + (gateway.limits.drain_seconds if gateway else 0.0)
        statuses = wait.read_statuses(s3, bucket, names)
        told = turns.leaving(turn, statuses, time.time() + drain)
        if told is None or turns.hold(turn, statuses) == "free":
            return
        s3.put_object(Bucket=bucket, Key=LEAVING_KEY, Body=to_json(told).encode())
        pulumi.log.info(f"{turn.group} ends what it has begun; the others answer meanwhile")
        while (found := turns.hold(turn, wait.read_statuses(s3, bucket, names))) != "free":
            if time.monotonic() - began > (HEARD_SECONDS if found == "routed" else drain):
                pulumi.log.warn(f"{turn.group} is still {found}: its nodes end all the same")
                return
            time.sleep(POLL_SECONDS)

    def _say(self, turn: turns.Turn, verdict: Waiting, said: str) -> str:
        phrase = f"{turn.group} keeps its nodes until the others serve: {wait.progress(verdict)}"
        if phrase != said:
            pulumi.log.info(phrase)
        return phrase

    def _s3(self):  # noqa: ANN202 - boto3's client, whose type is a stub's
        session = boto3.Session(profile_name=self._args.profile, region_name=self._args.region)
        return session.client("s3")

    def _deployed(self) -> Deployment | None:
        """What answered last; None where nothing did, or where it can't be read."""
        session = boto3.Session(profile_name=self._args.profile, region_name=self._args.region)
        try:
            account = session.client("sts").get_caller_identity()["Account"]
            bucket = bucket_name(self._args.plan.stack, account)
            body = session.client("s3").get_object(Bucket=bucket, Key=DEPLOYMENT_KEY)["Body"]
            return from_json(Deployment, body.read())
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") not in ("NoSuchKey", "NoSuchBucket"):
                _warn(error)
            return None
        except (BotoCoreError, ContractError) as error:
            _warn(error)
            return None


def _warn(error: Exception) -> None:
    pulumi.log.warn(f"What the stack runs can't be read: all groups change at once. {error}")


def _earlier(
    plan: Plan, told: Mapping[str, Assignment], ids: Mapping[str, str], before: Deployment | None
) -> Deployment:
    """What the groups that were made before must report; nothing where there are none."""
    groups = tuple(group for group in plan.groups if group.primary.name in ids)
    if not groups and before is not None:
        return replace(before, nodes={}, groups={}, gateway=None)
    mine = {name: told[name] for name in ids}
    return expected(replace(plan, groups=groups, gateway=None), mine, ids, "")
