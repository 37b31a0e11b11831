"""The group's protocol under crashes, lossy links, reboots and replaced disks, in simulated time.

The world below knows what the facts say of vLLM: a group answers only if every role was started
for the same pair and has run without a break; a role that lost a peer goes on running.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node_bootstrap.agent import group as g
from node_bootstrap.agent.group_transfer import OTHERS_SECONDS, RETRY_SECONDS
from node_bootstrap.agent.member import Member
from node_bootstrap.agent.persisted import record, restore
from node_bootstrap.agent.protocol import (
    Heartbeat,
    Measure,
    Now,
    Pair,
    RoleView,
    StartRole,
    StopRole,
)
from node_bootstrap.status import ProbeReport
from node_bootstrap.transfer.judge import Outcome

STEP = 0.5
SILENCE = 5.0
ENGINE_START = 6.0
START_LIMIT = 40.0
PRIMARY = "n0"
MEASURE, MEASURE_LIMIT = 2.0, 20.0


@dataclass
class Disk:
    serial: int = 0
    started: Pair | None = None
    group: object = None


@dataclass
class Node:
    name: str
    instance: int = 0
    boot: int = 0
    disk: Disk = field(default_factory=Disk)
    role: Pair | None = None
    role_since: float = 0.0
    agent_down_until: float = 0.0
    agent_started: float = 0.0
    sequence: int = 0
    link_down_until: float = 0.0
    member: Member | None = None
    group: g.Group | None = None
    assigned: str = "r1"
    prepared_at: float = 1.0
    unheard_since: float = 0.0
    late: list = field(default_factory=list)
    token: str = ""
    measured_at: float = 0.0

    def view(self) -> RoleView:
        return RoleView("running" if self.role else "absent", self.disk.started)


class World:
    def __init__(self, members: int, seed: int, *, measured: bool = False) -> None:
        self.t = 0.0
        self.measured = measured
        self.random = random.Random(seed)  # noqa: S311 - a simulation, not a secret
        self.nodes = {f"n{i}": Node(f"n{i}") for i in range(members + 1)}
        self.loss = 0.0
        self.starts: set[tuple[str, int, Pair]] = set()
        self.disks = 0
        self.last_generation = 0
        for node in self.nodes.values():
            self.boot_agent(node)

    @property
    def now(self) -> Now:
        return Now(self.t, 1e9 + self.t)

    def plan(self, revision: str) -> g.Plan:
        others = tuple(name for name in self.nodes if name != PRIMARY)
        plan = g.Plan(revision, PRIMARY, others, len(self.nodes), START_LIMIT, SILENCE)
        if not self.measured or not others:
            return plan
        return replace(plan, transfer="s", transfer_required=True, transfer_seconds=MEASURE_LIMIT)

    def boot_agent(self, node: Node) -> None:
        node.agent_started = self.t + 1e-3
        node.sequence = 0
        node.unheard_since = self.t
        node.prepared_at = self.t + self.random.choice([0.0, 1.0, 3.0])
        node.late, node.token = [], ""
        if node.name == PRIMARY:
            boot = f"b{node.boot}"
            saved = node.disk.group
            node.group = (
                restore(saved, boot, node.view(), self.now)
                if saved
                else g.new(self.plan(node.assigned), self.now)
            )
        else:
            node.member = Member(SILENCE).observe(node.view()).resume(self.t)

    # what may go wrong
    def kill_role(self, node: Node) -> None:
        node.role = None

    def kill_agent(self, node: Node) -> None:
        node.agent_down_until = max(node.agent_down_until, self.t + self.random.choice([1.0, 8.0]))

    def reboot(self, node: Node) -> None:
        node.boot += 1
        node.role = None
        node.agent_down_until = self.t + 4.0

    def replace(self, node: Node) -> None:
        node.instance += 1
        self.disks += 1
        node.disk = Disk(self.disks)
        self.reboot(node)

    def cut(self, node: Node) -> None:
        node.link_down_until = self.t + self.random.choice([2.0, 7.0, 30.0])

    def assign(self, _node: Node) -> None:
        revision = f"r{self.random.randrange(1, 5)}"
        for node in self.nodes.values():
            node.assigned = revision
            node.prepared_at = self.t + self.random.choice([0.0, 1.0, 3.0])

    # one step
    def step(self) -> None:
        self.t += STEP
        for node in self.nodes.values():
            if node.agent_down_until and self.t >= node.agent_down_until:
                node.agent_down_until = 0.0
                self.boot_agent(node)
        order = list(self.nodes.values())
        self.random.shuffle(order)
        for node in order:
            if node.agent_down_until:
                continue
            if node.name == PRIMARY:
                self.step_primary(node)
            else:
                self.step_member(node)

    def step_primary(self, node: Node) -> None:
        if self.t >= node.prepared_at:
            self.feed(node, g.Prepared(self.plan(node.assigned)))
        self.feed(node, g.Tick(node.view()), act=True)
        self.feed(node, g.Tick(node.view()))
        if token := self.done(node):
            self.feed(node, g.Measured(token, Outcome(seconds=MEASURE)))
        if node.role and self.random.random() < 0.5:
            for rank in range(len(self.nodes)):
                self.feed(node, self.probe(node, rank))

    def probe(self, node: Node, rank: int) -> g.Probed:
        pair = node.role
        whole = all(
            n.role == pair and self.t - n.role_since >= ENGINE_START and self.t > n.link_down_until
            for n in self.nodes.values()
        )
        answer = ProbeReport(rank, "x", 0.1, self.now.epoch) if whole else None
        return g.Probed(pair, rank, answer, "" if whole else "timed out")

    def feed(self, node: Node, event: g.Event, *, act: bool = False) -> None:
        before = node.group
        node.group, actions = g.advance(node.group, event, self.now)
        if before is not None:
            assert node.group.generation >= before.generation
        node.disk.group = record(node.group, f"b{node.boot}")
        if act:
            for action in actions:
                self.act(node, action)

    def done(self, node: Node) -> str:
        """Token of the measurement that this node is done with."""
        return node.token if node.token and self.t >= node.measured_at else ""

    def act(self, node: Node, action: StartRole | StopRole | Measure) -> None:
        if isinstance(action, StopRole):
            node.role = None
            return
        if isinstance(action, Measure):
            assert node.role is None, "nothing runs while it is measured"
            if node.token != action.token:
                node.token, node.measured_at = action.token, self.t + MEASURE
            return
        key = (node.name, node.disk.serial, action.pair)
        assert key not in self.starts, "a node starts one pair at most once"
        self.starts.add(key)
        if node.name == PRIMARY:
            others = [n.role for n in self.nodes.values() if n.name != PRIMARY]
            assert others == [None] * len(others), "a generation starts once all are stopped"
            known = [n.disk.started.generation for n in self.nodes.values() if n.disk.started]
            assert action.pair.generation > max(known, default=0), "generations only grow"
        node.disk.started = node.role = action.pair
        node.role_since = self.t

    def step_member(self, node: Node) -> None:
        if self.t >= node.prepared_at:
            node.member = node.member.prepare(node.assigned)
        node.member = node.member.observe(node.view())
        for action in node.member.actions(self.t):
            self.act(node, action)
        node.member = node.member.observe(node.view())
        self.heartbeat(node)
        if node.role:
            assert self.t - node.unheard_since <= SILENCE + 2 * STEP

    def heartbeat(self, node: Node) -> None:
        node.sequence += 1
        member = node.member
        beat = Heartbeat(
            name=node.name,
            instance_id=f"i{node.instance}",
            boot_id=f"b{node.instance}.{node.boot}",
            agent_started=node.agent_started,
            sequence=node.sequence,
            phase=member.phase(),
            revision=member.prepared,
            started=member.role.started,
            acknowledged=member.directive.generation if member.directive else 0,
            measured=self.done(node),
        )
        primary = self.nodes[PRIMARY]
        linked = max(node.link_down_until, primary.link_down_until) < self.t
        if not linked or primary.agent_down_until or self.random.random() < self.loss:
            return
        if self.random.random() < self.loss:  # arrives after the client gave up
            node.late.append(beat)
            return
        self.feed(primary, g.Heard(beat))
        if node.late and self.random.random() < 0.5:
            self.feed(primary, g.Heard(node.late.pop()))
        if self.random.random() >= self.loss:
            node.member = member.hear(g.directive(primary.group), self.t)
            node.unheard_since = self.t

    def settled(self) -> bool:
        primary = self.nodes[PRIMARY]
        wanted = {n.assigned for n in self.nodes.values()}
        return (
            not primary.agent_down_until
            and primary.group.ready
            and {primary.group.plan.revision} == wanted
            and {n.role for n in self.nodes.values()} == {primary.group.pair}
        )


FAULTS = ("kill_role", "kill_agent", "reboot", "replace", "cut", "assign")
fault = st.tuples(st.sampled_from(FAULTS), st.integers(0, 3), st.integers(0, 60))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(
    members=st.integers(0, 3),
    faults=st.lists(fault, max_size=12),
    loss=st.sampled_from([0.0, 0.1, 0.3, 0.6]),
    seed=st.integers(0, 10_000),
    measured=st.booleans(),
)
def test_the_group_is_ready_again_once_faults_stop(members, faults, loss, seed, measured):
    world = World(members, seed, measured=measured)
    world.loss = loss
    for name, which, steps in faults:
        for _ in range(steps):
            world.step()
        getattr(world, name)(world.nodes[f"n{which % (members + 1)}"])
    world.loss = 0.0
    # The longest way back: a cut of 30 s, a start that must time out, the longest back-off.
    bound = 30 + START_LIMIT + max(g.BACKOFF_SECONDS) + ENGINE_START + 3 * SILENCE + 15
    if measured:  # one that went wrong, and the next
        bound += OTHERS_SECONDS + RETRY_SECONDS + 2 * MEASURE
    for _ in range(int(bound / STEP)):
        world.step()
    assert world.settled(), world.nodes[PRIMARY].group
    pair = world.nodes[PRIMARY].group.pair
    for _ in range(40):
        world.step()
    assert world.settled()
    assert world.nodes[PRIMARY].group.pair == pair, "a group without faults stays as it is"


@pytest.mark.parametrize("who", ["n0", "n1"])
@pytest.mark.parametrize("what", ["kill_role", "reboot", "replace", "cut"])
def test_a_single_fault_is_noticed_within_ten_seconds_and_mended(what, who):
    world = World(1, seed=1)
    for _ in range(60):
        world.step()
    assert world.settled()
    before = world.nodes[PRIMARY].group.generation
    world.random = random.Random(5)  # noqa: S311 - a simulation, not a secret
    world.cut = lambda node: setattr(node, "link_down_until", world.t + 12.0)
    broken_at = world.t
    getattr(world, what)(world.nodes[who])
    noticed = None
    while not (noticed and world.settled()) and world.t < broken_at + 60:
        world.step()
        primary = world.nodes[PRIMARY].group
        if noticed is None and not primary.ready:
            noticed = world.t
    assert noticed is not None
    assert noticed - broken_at <= 10
    assert world.settled()
    assert world.nodes[PRIMARY].group.generation > before


def test_a_killed_agent_changes_nothing_when_it_is_back_in_time():
    world = World(2, seed=2)
    for _ in range(60):
        world.step()
    pair = world.nodes[PRIMARY].group.pair
    for name in ("n0", "n1"):
        world.nodes[name].agent_down_until = world.t + 2.0
        for _ in range(30):
            world.step()
        assert world.settled()
        assert world.nodes[PRIMARY].group.pair == pair
