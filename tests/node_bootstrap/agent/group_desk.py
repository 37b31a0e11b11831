"""A group's machine in the hands of a test: its clock, its own role, and one member."""

from __future__ import annotations

from dataclasses import replace

from node_bootstrap.agent import group as g
from node_bootstrap.agent.protocol import Heartbeat, Now, RoleView
from node_bootstrap.status import ProbeReport

PLAN = g.Plan("r1", "n0", ("n1",), ranks=2, start_seconds=60, silence_seconds=5)


class Desk:
    """A group, its clock, and the member that the test speaks for."""

    def __init__(self, group=None):
        self.t = 100.0
        self.group = group or g.new(PLAN, self.now)
        self.sequence = 0
        self.role = RoleView()
        self.actions = ()

    @property
    def now(self):
        return Now(self.t, 1e9 + self.t)

    def feed(self, event):
        self.group, self.actions = g.advance(self.group, event, self.now)

    def tick(self, seconds=0.0, role=None):
        self.t += seconds
        self.role = role or self.role
        self.feed(g.Tick(self.role))
        return self.actions

    def beat(self, **changes):
        self.sequence += 1
        generation = self.group.generation
        beat = Heartbeat("n1", "i-1", "b-1", 1.0, self.sequence, "stopped", "r1", None, generation)
        self.feed(g.Heard(replace(beat, **changes)))
        return g.directive(self.group)

    def answer(self, rank, error=""):
        report = None if error else ProbeReport(rank, "x", 0.1, self.now.epoch)
        self.feed(g.Probed(self.group.pair, rank, report, error))

    def start(self):
        self.feed(g.Prepared(PLAN))
        self.beat()
        self.tick()
        self.tick(role=RoleView("running", self.group.pair))
        return self

    def running(self):
        return self.beat(phase="running", started=self.group.pair)

    def make_ready(self):
        self.start()
        self.running()
        self.answer(0)
        self.answer(1)
        assert self.phase == "ready"
        return self

    @property
    def phase(self):
        return g.phase(self.group, self.now)

    @property
    def cause(self):
        return self.group.restarts[-1].cause
