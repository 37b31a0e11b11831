"""Instance life: EC2's states follow what the machine reports."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from moto.core.utils import utcnow
from moto.ec2.models.instance_types import INSTANCE_TYPES

from rehearsal.account.ec2 import blocks
from rehearsal.account.ec2.errors import refuse
from rehearsal.account.ec2.launches import release
from rehearsal.account.ec2.models import Image, Instance, NetworkInterface
from rehearsal.account.firewall import GroupRule, Member, resolve
from rehearsal.machine.interface import InstanceState, Launch, Machine, MachineError, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from moto.ec2.models.amis import Ami
    from moto.ec2.models.instances import InstanceState as Ec2State

    from rehearsal.account.ec2.backend import Backend
    from rehearsal.account.stateless import Stateless

log = logging.getLogger(__name__)

SETTLE_SECONDS = 10.0
"""A pending instance that the machine does not know yet is given this long to appear."""
SHOWN_SECONDS = 3600.0
"""How long EC2 shows a terminated instance."""
USER = ("Client.UserInitiatedShutdown: User initiated shutdown", "Client.UserInitiatedShutdown")
SELF = (
    "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
    "Client.InstanceInitiatedShutdown",
)
AWS = ("Server.InternalError: Internal error", "Server.InternalError")
SPOT = (
    "Server.SpotInstanceTermination: Spot instance termination",
    "Server.SpotInstanceTermination",
)
BLOCK_OVER = (
    "Server.InstanceTermination: Capacity Block ended",
    "Server.InstanceTermination",
)
LOST = ("Server.InternalError: Internal error on launch", "Server.InternalError")

Step = Literal["stay", "running", "stopped", "power-off", "terminated", "lost"]


def next_step(ec2: str, machine: InstanceState, behavior: str, seconds: float) -> Step:
    """What EC2 does when the machine reports a state. Pure.

    Args:
        ec2: the state that EC2 shows now.
        machine: what the machine reports.
        behavior: instance-initiated shutdown behavior, "stop" or "terminate".
        seconds: since EC2's state last changed.

    Returns:
        The state to enter; "power-off": the instance ended itself and is to be terminated;
        "lost": it is gone without anybody having asked for it.
    """
    settling = ec2 == "pending" and seconds < SETTLE_SECONDS
    if ec2 == "shutting-down":
        return "terminated" if machine == "terminated" else "stay"
    if machine == "terminated":
        return "stay" if settling else "lost"
    if ec2 == "stopping":
        return "stopped" if machine == "stopped" else "stay"
    if ec2 == "pending" and machine == "running":
        return "running"
    if ec2 in ("pending", "running") and machine == "stopped" and not settling:
        return "power-off" if behavior == "terminate" else "stopped"
    return "stay"


@dataclass
class Life:
    """Starts and ends instances on a machine and keeps EC2's states true.

    Every method is called with the account's lock held.
    """

    machine: Machine
    stateless: Stateless
    backends: Callable[[], list[Backend]]
    save: Callable[[], None]
    """Write the account's state now: an instance that boots must never be forgotten."""
    bootable: frozenset[str]
    """Image ids that the machine can boot."""
    boot: bool = True
    pending_seconds: Callable[[], float] = lambda: 0.0
    """How long a launched instance stays pending at least: an injected fault."""

    def __post_init__(self) -> None:
        """Know again the instances of an earlier process."""
        self._filters: dict[str, tuple[Rule, ...]] = {}
        states: dict[str, InstanceState] = {
            "running": "running",
            "pending": "running",
            "stopped": "stopped",
            "stopping": "stopped",
        }
        for instance in self._live():
            if not instance.boots and instance.state in states:
                self.stateless.adopt(instance.id, states[instance.state])

    def _live(self) -> Iterable[Instance]:
        return [i for b in self.backends() for i in b.instances() if i.state != "terminated"]

    def machine_of(self, instance: Instance) -> Machine:
        """Who runs an instance: launched while boot was off, it only has states."""
        return self.machine if instance.boots else self.stateless

    def check_bootable(self, backend: Backend, image_id: str | None) -> None:
        """Refuse to boot an image that this machine has no root file system for."""
        image = backend.amis.get(image_id or "")
        own = isinstance(image, Image) and image.boots
        if self.boot and image_id not in self.bootable and not own:
            raise refuse(
                "Unsupported",
                f"This rehearsal can boot only {', '.join(sorted(self.bootable))}, not {image_id}. "
                "Apply the stack without booting (BOOT=no), or use that image.",
            )

    def launch(self, backend: Backend, instance: Instance) -> None:
        """Boot a pending instance; what was made for it goes again where that fails."""
        if instance.boots:
            self.save()
        try:
            self.machine_of(instance).launch(_launch(backend, instance))
        except MachineError as fault:
            release(backend, instance, *LOST)
            raise refuse("Unsupported", str(fault)) from fault
        self.push_firewall()

    def start(self, instance: Instance) -> Ec2State:
        """StartInstances on one instance; returns the state before."""
        if instance.state not in ("stopped", "pending", "running"):
            raise _incorrect(instance, "started")
        if instance.state != "stopped":
            return instance.instance_state
        before = instance.go("pending")
        self._call(lambda: self.machine_of(instance).start(instance.id))
        return before

    def stop(self, instance: Instance, *, force: bool) -> Ec2State:
        """StopInstances on one instance; returns the state before."""
        if instance.state in ("terminated", "shutting-down"):
            raise _incorrect(instance, "stopped")
        if instance.state in ("stopped", "stopping"):
            return instance.instance_state
        before = instance.go("stopping", *USER)
        self._call(lambda: self.machine_of(instance).stop(instance.id, force=force))
        return before

    def reboot(self, instance: Instance) -> None:
        """RebootInstances on one instance."""
        if instance.state not in ("running", "pending"):
            raise _incorrect(instance, "rebooted")
        self._call(lambda: self.machine_of(instance).reboot(instance.id))

    def terminate(self, instance: Instance, why: tuple[str, str] = USER) -> Ec2State:
        """TerminateInstances on one instance; returns the state before."""
        if instance.state in ("terminated", "shutting-down"):
            return instance.instance_state
        before = instance.go("shutting-down", *why)
        self._call(lambda: self.machine_of(instance).terminate(instance.id))
        return before

    def make_image(self, image: Image, instance: Instance) -> None:
        """Begin to copy an instance's disk; of one that does not boot there is nothing to copy."""
        if image.boots:
            self.save()
            self._call(lambda: self.machine.make_image(image.id, instance.id))

    def forget_image(self, image_id: str) -> None:
        """Remove an image's copy; one that boots nothing has none."""
        self._call(lambda: self.machine.forget_image(image_id))

    def console(self, instance: Instance) -> bytes:
        """The console log so far."""
        return self.machine_of(instance).console(instance.id)

    @staticmethod
    def _call(action: Callable[[], None]) -> None:
        try:
            action()
        except MachineError as fault:
            raise refuse("Unsupported", str(fault)) from fault

    def reconcile(self) -> bool:
        """Let EC2's states follow the machine's; returns whether anything changed."""
        changed = False
        for backend in self.backends():
            for instance in blocks.instances_of(backend, blocks.follow(backend)):
                self.terminate(instance, BLOCK_OVER)
                changed = True
            for instance in backend.instances():
                changed |= self._reconcile(backend, instance)
            for image in backend.amis.values():
                changed |= self._follow_image(image)
            _forget_old(backend)
        if changed:
            self.push_firewall()
        return changed

    def _follow_image(self, image: Ami) -> bool:
        if image.state != "pending" or not isinstance(image, Image):
            return False
        copied = self.machine.image_state(image.id) if image.boots else "available"
        image.state = "failed" if copied == "unknown" else copied
        return copied != "pending"

    def _reconcile(self, backend: Backend, instance: Instance) -> bool:
        if instance.state == "terminated":
            return False
        seconds = (utcnow() - instance.transition.since).total_seconds()
        step = next_step(
            instance.state,
            self.machine_of(instance).state(instance.id),
            instance.instance_initiated_shutdown_behavior,
            seconds,
        )
        if step == "stay" or (step == "running" and seconds < self.pending_seconds()):
            return False
        log.info("%s: %s -> %s", instance.id, instance.state, step)
        if step == "running":
            instance.go("running")
        elif step == "stopped":
            why = USER if instance.state == "stopping" else SELF
            instance.go("stopped", *why)
        elif step == "power-off":
            self.terminate(instance, SELF)
        elif step == "terminated":
            reason = instance.state_reason
            release(backend, instance, reason.message, reason.code)
        else:
            release(backend, instance, *LOST)
        return True

    def push_firewall(self) -> None:
        """Give the machine the rules of every VPC with booted instances, where they changed."""
        for backend in self.backends():
            booted = {i.vpc_id for i in backend.instances() if i.boots and i.state != "terminated"}
            for vpc_id in filter(None, booted):
                rules = rules_of(backend, vpc_id)
                if self._filters.get(vpc_id) != rules:
                    self._call(lambda v=vpc_id, r=rules: self.machine.firewall(v, r))
                    self._filters[vpc_id] = rules
            for vpc_id in set(self._filters) - {b for b in booted if b}:
                if vpc_id in backend.vpcs:
                    del self._filters[vpc_id]


def _incorrect(instance: Instance, verb: str) -> Exception:
    return refuse(
        "IncorrectInstanceState",
        f"The instance '{instance.id}' is not in a state from which it can be {verb} "
        f"(it is {instance.state}).",
    )


def _launch(backend: Backend, instance: Instance) -> Launch:
    primary = instance.nics[0]
    kind = INSTANCE_TYPES[instance.instance_type]
    return Launch(
        instance_id=instance.id,
        image_id=instance.image_id,
        vpc_id=primary.vpc_id,
        vpc_cidr=backend.get_vpc(primary.vpc_id).cidr_block,
        subnet_id=primary.subnet_id,
        subnet_cidr=primary.subnet.cidr_block,
        private_ip=primary.private_ip_address,
        mac=primary.mac_address,
        hostname=instance.private_dns_name.split(".")[0],
        cpus=int(kind["VCpuInfo"]["DefaultVCpus"]),
        memory_mib=int(kind["MemoryInfo"]["SizeInMiB"]),
    )


def _forget_old(backend: Backend) -> None:
    limit = utcnow() - timedelta(seconds=SHOWN_SECONDS)
    for reservation in list(backend.reservations.values()):
        shown = [
            i
            for i in reservation.instances
            if not (
                isinstance(i, Instance) and i.state == "terminated" and i.transition.since < limit
            )
        ]
        if not shown:
            del backend.reservations[reservation.id]
        if len(shown) < len(reservation.instances):
            backend.by_id.clear()
        reservation.instances = shown


def rules_of(backend: Backend, vpc_id: str) -> tuple[Rule, ...]:
    """A VPC's security groups as the machine's rules."""
    members = [
        Member(e.private_ip_address, tuple(g.id for g in e.group_set))
        for e in backend.enis.values()
        if isinstance(e, NetworkInterface) and e.vpc_id == vpc_id and e.private_ip_address
    ]
    groups = {g.id: _group_rules(g) for g in backend.groups.get(vpc_id, {}).values()}
    return resolve(members, groups)


def _group_rules(group: Any) -> list[GroupRule]:
    directions: tuple[tuple[Literal["ingress", "egress"], Any], ...] = (
        ("ingress", group.ingress_rules),
        ("egress", group.egress_rules),
    )
    return [
        GroupRule(
            direction,
            rule.ip_protocol or "-1",
            rule.from_port,
            rule.to_port,
            rule.cidr_ipv4,
            (rule.source_group or {}).get("GroupId"),
        )
        for direction, rules in directions
        for rule in rules
    ]
