"""The agent: turns a few times a second, keeps node and group as assigned, tells how it is."""

from __future__ import annotations

import logging
import signal
import threading
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from node_bootstrap import durable, runner
from node_bootstrap.agent import logs
from node_bootstrap.agent.desk import Desk
from node_bootstrap.agent.ending import Ending, SystemdTimer
from node_bootstrap.agent.headless import Headless
from node_bootstrap.agent.notify import notify
from node_bootstrap.agent.preparer import Preparer, Progress, Tools
from node_bootstrap.agent.primary import Primary
from node_bootstrap.agent.protocol import Directive, Heartbeat, Pair, RoleView
from node_bootstrap.agent.report import Reporter, StatusCollector
from node_bootstrap.agent.role import Supervisor, tail
from node_bootstrap.agent.role_facts import RoleReader
from node_bootstrap.agent.server import AgentServer, Answers
from node_bootstrap.agent.store import Store, clients
from node_bootstrap.gate.decide import GateRecord
from node_bootstrap.status import SCHEMA, Fault, Found, GroupReport, HardwareReport, Status
from node_bootstrap.steps import hardware, software
from node_bootstrap.steps.role_unit import RoleStep
from node_bootstrap.steps.weights import WeightsStep

if TYPE_CHECKING:
    from collections.abc import Callable

    from node_bootstrap.agent.identity import Identity, NodeConfig
    from node_bootstrap.assignment import Assignment
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
        self._desk: Primary | Headless | None = None
        self._server: AgentServer | None = None
        self._server_error = ""
        self._told: Assignment | None = None
        self._told_prepared: Assignment | None = None
        # An agent that starts anew in the same boot does not look again.
        gated = durable.load(places.gate, GateRecord)
        self._hardware = gated.report if gated else None
        self._reader = RoleReader(supervisor, places.state / "role-facts.json")
        self._preparer = Preparer(
            places, identity.boot_id, archive_sha256, self._make_tools, self._wake.set
        )
        self._ending = Ending(
            places.state / "ending.json", identity, SystemdTimer() if systemd else None
        )
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
        return Status(
            schema=SCHEMA,
            node=self._config.node,
            instance_id=self._identity.instance_id,
            boot_id=self._identity.boot_id,
            updated_at=time.time(),
            phase=progress.phase,
            steps=progress.steps,
            archive_sha256=self._archive,
            revision=started.revision if running and started else prepared,
            generation=started.generation if started else 0,
            running=running,
            found=self._reader.found(progress.found),
            fault=_fault(progress, desk, started),
            group=self._group(),
            booted_at=self._identity.booted_at,
            agent_started_at=self._started_at,
            ends_at=self._ending.ends_at,
            hardware=self._hardware,
        )

    def _tick(self) -> None:
        progress = self._preparer.progress
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
            self._reader.read(
                self._desk.role.started if self._desk.role.state == "running" else None
            )
        self._reporter.submit(self.status())

    def _make_desk(self, assignment: Assignment) -> Primary | Headless:
        desk = Desk(
            supervisor=self._supervisor,
            token=self._token,
            refresh_token=self._preparer.refresh_token,
            secret=self._secret,
            why_unprepared=self._why_unprepared,
            read_tail=self._read_tail,
        )
        if assignment.position == "primary":
            return Primary(assignment, desk, self._places, self._identity)
        return Headless(assignment, desk, self._identity)

    def _why_unprepared(self) -> str:
        progress = self._preparer.progress
        return progress.fault or f"({progress.phase})"

    def _read_tail(self) -> str:
        return logs.redact(tail(self._supervisor.log()), self._preparer.secrets())

    def _listen(self, assignment: Assignment) -> None:
        if self._server is not None:
            return
        registry = CollectorRegistry()
        registry.register(StatusCollector(self.status))
        address = (assignment.hardware.private_ip, assignment.agent_port)
        try:
            answers = Answers(self._token, self._hear, self._group, registry)
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

    def _group(self) -> GroupReport | None:
        return self._desk.report() if isinstance(self._desk, Primary) else None

    def _token(self) -> str:
        assignment = self._preparer.progress.assignment
        return self._preparer.parameter(assignment.agent_token_parameter) if assignment else ""

    def _secret(self, variable: str) -> str:
        assignment = self._preparer.progress.assignment
        name = assignment.secret_env.get(variable, "") if assignment else ""
        return self._preparer.parameter(name)

    def _put(self, status: Status) -> None:
        if self._store is not None:
            self._store.put_status(status)

    def _make_tools(self) -> Tools:
        make = clients(self._config.region)
        self._store = store = Store(self._config.bucket, self._config.node, make("s3"), make("ssm"))
        self._ending.ask(store.extension)
        return Tools(store, lambda assignment: self._steps(assignment, store), look, versions)

    def _gate(self, assignment: Assignment) -> hardware.HardwareStep:
        return hardware.HardwareStep(
            assignment.hardware,
            node=f"{self._config.node} ({self._identity.instance_id})",
            boot_id=self._identity.boot_id,
            record=self._places.gate,
            tell=self._tell_hardware,
        )

    def _tell_hardware(self, report: HardwareReport) -> None:
        self._hardware = report

    def _steps(self, assignment: Assignment, store: Store) -> tuple[Step, ...]:
        address = assignment.hardware.private_ip
        return (
            self._gate(assignment),
            software.SoftwareStep(assignment.software),
            WeightsStep(assignment.weights, store.read_object, self._places.state / "weights.json"),
            RoleStep(
                assignment,
                self._places,
                lambda: hardware.look(address).interface,
                lambda names: self._preparer.read_parameters(names, store),
                self._systemd,
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
    progress: Progress, desk: Primary | Headless | None, started: Pair | None
) -> Fault | None:
    if progress.fault:
        generation = started.generation if started else 0
        return Fault(progress.faulted_at, progress.fault, generation)
    return desk.fault if desk is not None else None
