"""The agent: turns a few times a second, keeps node and group as assigned, tells how it is."""

from __future__ import annotations

import logging
import signal
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from node_bootstrap import durable, runner
from node_bootstrap.agent import logs, transport
from node_bootstrap.agent.desk import Desk
from node_bootstrap.agent.ending import Ending, SystemdTimer
from node_bootstrap.agent.first_pass import FirstPass
from node_bootstrap.agent.headless import Headless
from node_bootstrap.agent.machine import MachineCollector
from node_bootstrap.agent.notify import notify
from node_bootstrap.agent.own_backend import OwnBackend
from node_bootstrap.agent.preparer import Preparer, Progress, Tools
from node_bootstrap.agent.primary import Primary
from node_bootstrap.agent.protocol import (
    Directive,
    Heartbeat,
    LeaveOrder,
    Pair,
    RestartOrder,
    RoleView,
)
from node_bootstrap.agent.report import Reporter, StatusCollector
from node_bootstrap.agent.role import Supervisor, tail
from node_bootstrap.agent.role_facts import RoleReader
from node_bootstrap.agent.sealing import Sealing
from node_bootstrap.agent.server import AgentServer, Answers
from node_bootstrap.agent.shelf import shelf_of
from node_bootstrap.agent.store import Store, clients
from node_bootstrap.gate.decide import GateRecord
from node_bootstrap.gateway.node import GatewayNode, Lent
from node_bootstrap.gateway.units import Systemd
from node_bootstrap.status import (
    SCHEMA,
    Fault,
    Found,
    GroupReport,
    HardwareReport,
    Sign,
    Status,
)
from node_bootstrap.steps import hardware, software
from node_bootstrap.steps.choose import Node, steps
from node_bootstrap.steps.kernels import AfterReady
from node_bootstrap.steps.wheels import Shelf
from node_bootstrap.transfer import pair
from node_bootstrap.transfer.measurer import PAIR_UNIT, Measurer

if TYPE_CHECKING:
    from collections.abc import Callable

    from node_bootstrap.agent.identity import Identity, NodeConfig
    from node_bootstrap.assignment import Assignment
    from node_bootstrap.leaving import Leaving
    from node_bootstrap.places import Places
    from node_bootstrap.steps.base import Step

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25


class Agent:
    """One node's agent. `run` returns 0 when systemd should start it anew."""

    def __init__(  # noqa: PLR0913 - what a node is made of
        self,
        config: NodeConfig,
        identity: Identity,
        places: Places,
        supervisor: Supervisor,
        archive_sha256: str,
        *,
        systemd: bool,
    ) -> None:
        """Take up where the last agent left; nothing is sent until `run`."""
        self._config = config
        self._identity = identity
        self._places = places
        self._supervisor = supervisor
        self._archive = archive_sha256
        self._systemd = systemd
        self._started_at = time.time()
        self._end = threading.Event()
        self._wake = threading.Event()
        self._store: Store | None = None
        self._desk: Primary | Headless | GatewayNode | Sealing | None = None
        self._server: AgentServer | None = None
        self._server_error = ""
        self._doing = ""
        self._kernels = AfterReady(places)
        self._told: Assignment | None = None
        self._told_prepared: Assignment | None = None
        # An agent that starts anew in the same boot does not look again.
        gated = durable.load(places.gate, GateRecord)
        self._hardware = gated.report if gated else None
        self._reader = RoleReader(supervisor, places.state / "role-facts.json")
        self._preparer = Preparer(
            places, identity.boot_id, archive_sha256, self._make_tools, self._wake.set
        )
        self._first_pass = FirstPass(places.state / "boot.json", identity.boot_id, self._started_at)
        self._backend = OwnBackend(places, self._preparer, systemd)
        self._ending = Ending(
            places.state / "ending.json", identity, SystemdTimer() if systemd else None
        )
        self._measurer = Measurer(places, self._wake.set, systemd=systemd)
        self._pair_measurer = Measurer(places, self._wake.set, systemd=systemd, unit=PAIR_UNIT)
        self._reporter = Reporter(self._put, places.state / "status.json")

    def run(self) -> int:
        """Work until told to end or until a new archive is in place."""
        self._preparer.start()
        notify("READY=1")
        leave = ""
        while not leave and not self._end.is_set():
            self._wake.wait(TICK_SECONDS)
            self._wake.clear()
            notify("WATCHDOG=1")
            try:
                self._tick()
            except (runner.CommandError, OSError) as error:
                log.error("%s", error)  # noqa: TRY400 - the message has the whole story
            leave = self._preparer.progress.leave
        if leave:
            log.info("starting anew: %s", leave)
        self._preparer.close()
        self._measurer.stop()
        self._pair_measurer.stop()
        self._ending.close()
        if self._desk is not None:
            self._desk.close()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._reporter.close(3)
        return 0

    def end(self) -> None:
        """Ask `run` to return; the role goes on."""
        self._end.set()
        self._wake.set()

    def status(self) -> Status:
        """The node at this moment."""
        progress = self._preparer.progress
        desk = self._desk
        role = desk.role if desk is not None else RoleView()
        started = role.started
        running = role.state == "running"
        prepared = progress.prepared.revision if progress.prepared else ""
        role_fault = self._role_fault() if running else ""
        return Status(
            schema=SCHEMA,
            node=self._config.node,
            instance_id=self._identity.instance_id,
            boot_id=self._identity.boot_id,
            updated_at=time.time(),
            phase="failed" if role_fault else progress.phase,
            steps=progress.steps,
            archive_sha256=self._archive,
            revision=started.revision if running and started else prepared,
            generation=started.generation if started else 0,
            running=running,
            found=self._reader.found(progress.found),
            fault=Fault(self._reader.said_at, role_fault, started.generation if started else 0)
            if role_fault and not progress.fault
            else _fault(progress, desk, started),
            group=self._group(),
            booted_at=self._identity.booted_at,
            agent_started_at=self._started_at,
            ends_at=self._ending.ends_at,
            gateway=desk.report() if isinstance(desk, GatewayNode) else None,
            hardware=self._hardware,
            backend=self._backend.report(),
            doing=self._doing,
            signs=self._signs() if running else (),
            metrics=desk.metrics() if isinstance(desk, Primary) else None,
            boot=self._first_pass.kept,
        )

    def _tick(self) -> None:
        progress = self._preparer.progress
        self._first_pass.look(progress)
        if progress.assignment is not None:
            self._ending.assign(progress.assignment.ttl)
            if self._desk is None:
                self._desk = self._make_desk(progress.assignment)
            if progress.assignment is not self._told:
                self._desk.assign(progress.assignment)
                self._told = progress.assignment
            if progress.prepared is not None and progress.prepared is not self._told_prepared:
                self._desk.prepared(progress.prepared)
                self._told_prepared = progress.prepared
            self._listen(progress.assignment)
            self._desk.tick()
            if self._store is not None:
                self._kernels.look(progress.prepared, self._group(), shelf_of(self._store))
            self._reader.read(
                self._desk.role.started if self._desk.role.state == "running" else None,
                moves_kv=progress.assignment.kv_transfer is not None,
            )
        self._reporter.submit(self.status())

    def _make_desk(self, assignment: Assignment) -> Primary | Headless | GatewayNode | Sealing:
        if assignment.target == "image":
            return Sealing(self._places, lambda: self._put(self.status()))
        if assignment.gateway is not None:
            lent = Lent(self._token, self._secret, self._publish, self._wake.set, self._leaving)
            return GatewayNode(assignment, lent, self._places, Systemd())
        desk = Desk(
            supervisor=self._supervisor,
            token=self._token,
            refresh_token=self._preparer.refresh_token,
            secret=self._secret,
            why_unprepared=self._why_unprepared,
            read_tail=self._read_tail,
            kv_fault=self._role_fault,
            able=self._backend.able,
            use_backend=self._backend.use,
            measure=self._measure,
            measured=lambda: self._measurer.last,
        )
        if assignment.position == "primary":
            return Primary(assignment, desk, self._places, self._identity)
        return Headless(assignment, desk, self._identity)

    def _why_unprepared(self) -> str:
        progress = self._preparer.progress
        return progress.fault or f"({progress.phase})"

    def _read_tail(self) -> str:
        return logs.redact(tail(self._supervisor.log()), self._preparer.secrets())

    def _signs(self) -> tuple[Sign, ...]:
        secrets = self._preparer.secrets()
        return tuple(replace(s, line=logs.redact(s.line, secrets)) for s in self._reader.signs)

    def _listen(self, assignment: Assignment) -> None:
        if self._server is not None or not assignment.agent_token_parameter:
            return
        registry, machine = CollectorRegistry(), CollectorRegistry()
        registry.register(StatusCollector(self.status))
        machine.register(MachineCollector())
        address = (assignment.hardware.private_ip, assignment.agent_port)
        try:
            asked = (self._token, self._hear, self._group, registry, self._order, machine)
            answers = Answers(*asked, self._measure_pair)
            self._server = AgentServer(address, answers)
        except OSError as error:  # the address may still be on its way (DHCP)
            if str(error) != self._server_error:
                log.warning("can't listen on %s:%d yet: %s", *address, error)
            self._server_error = str(error)

    def _hear(self, beat: Heartbeat) -> Directive | None:
        if not isinstance(self._desk, Primary):
            return None
        answer = self._desk.hear(beat)
        self._wake.set()  # it may have been the last one to wait for
        return answer

    def _order(self, order: RestartOrder | LeaveOrder) -> bool:
        if not isinstance(self._desk, Primary):
            return False
        self._desk.order(order)
        self._wake.set()
        return True

    def _kv_fault(self) -> str:
        assignment = self._preparer.progress.assignment
        planned = assignment.kv_transfer if assignment else None
        return transport.fault(planned, self._reader.kv()[0]) if planned else ""

    def _role_fault(self) -> str:
        """Why the role that runs is not the planned one, by its own words."""
        return self._kv_fault() or self._backend.fault(self._reader.all2all_backend)

    def _group(self) -> GroupReport | None:
        return self._desk.report() if isinstance(self._desk, Primary) else None

    def _token(self) -> str:
        assignment = self._preparer.progress.assignment
        return self._preparer.parameter(assignment.agent_token_parameter) if assignment else ""

    def _secret(self, variable: str) -> str:
        assignment = self._preparer.progress.assignment
        name = assignment.secret_env.get(variable, "") if assignment else ""
        return self._preparer.parameter(name)

    def _publish(self, key: str, text: str) -> None:
        if self._store is not None:
            self._store.put_text(key, text)

    def _leaving(self) -> Leaving | None:
        return self._store.leaving() if self._store is not None else None

    def _put(self, status: Status) -> None:
        if self._store is not None:
            self._store.put_status(status)

    def _make_tools(self) -> Tools:
        make = clients(self._config.region)
        self._store = store = Store(self._config.bucket, self._config.node, make("s3"), make("ssm"))
        self._ending.ask(store.extension)
        return Tools(store, lambda assignment: self._steps(assignment, store), look, versions)

    def _gate(self, assignment: Assignment, needs: tuple[str, ...]) -> hardware.HardwareStep:
        return hardware.HardwareStep(
            assignment.hardware,
            node=f"{self._config.node} ({self._identity.instance_id})",
            boot_id=self._identity.boot_id,
            record=self._places.gate,
            tell=self._tell_hardware,
            needs=needs,
        )

    def _measure(self, token: str) -> None:
        progress = self._preparer.progress
        if not token or progress.prepared is None:
            self._measurer.stop()
        else:
            self._measurer.start(progress.prepared, token, progress.found.interface)

    def _measure_pair(self, order: pair.MeasureOrder) -> pair.MeasureReport:
        progress, instance = self._preparer.progress, self._identity.instance_id
        interface = progress.found.interface
        return pair.take_part(self._pair_measurer, progress.prepared, interface, order, instance)

    def _tell_hardware(self, report: HardwareReport) -> None:
        self._hardware = report

    def _at(self, doing: str) -> None:
        """A step tells what it is at; called from the step's thread."""
        self._doing = doing
        self._wake.set()

    def _steps(self, assignment: Assignment, store: Store) -> tuple[Step, ...]:
        address = assignment.hardware.private_ip
        return steps(
            assignment,
            Node(
                places=self._places,
                boot_id=self._identity.boot_id,
                gate=self._gate,
                read=store.read_object,
                interface=lambda: hardware.look(address).interface,
                parameters=lambda names: self._preparer.read_parameters(names, store),
                systemd=self._systemd,
                list_objects=store.list_objects,
                shelf=Shelf(store.load, store.save),
                bucket=shelf_of(store),
                tell=self._at,
            ),
        )


def look(assignment: Assignment) -> Found:
    """The node's hardware."""
    return hardware.look(assignment.hardware.private_ip)


def versions(assignment: Assignment) -> dict[str, str]:
    """Versions of the distributions that the assignment names, as far as they are there."""
    try:
        have = software.installed(assignment.software.python)
    except runner.CommandError:
        return {}
    names = {n: have.get(software.normalized(n)) for n in assignment.software.distributions}
    return {name: version for name, version in names.items() if version is not None}


def install_signals(end: Callable[[], None]) -> None:
    """SIGTERM and SIGINT end the agent in order."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end())


def _fault(
    progress: Progress,
    desk: Primary | Headless | GatewayNode | Sealing | None,
    started: Pair | None,
) -> Fault | None:
    if progress.fault:
        generation = started.generation if started else 0
        return Fault(progress.faulted_at, progress.fault, generation)
    return desk.fault if desk is not None else None
