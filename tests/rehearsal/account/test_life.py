"""How EC2's states follow the machine's. Pure."""

from __future__ import annotations

import pytest

from rehearsal.account.life import next_step
from rehearsal.account.stateless import BOOT_SECONDS, Stateless
from rehearsal.machine.interface import Launch

STEPS = [
    ("pending", "pending", "stop", 60, "stay"),
    ("pending", "running", "stop", 0, "running"),
    ("pending", "terminated", "stop", 1, "stay"),
    ("pending", "terminated", "stop", 60, "lost"),
    ("pending", "stopped", "stop", 1, "stay"),
    ("running", "running", "stop", 60, "stay"),
    ("running", "stopped", "stop", 60, "stopped"),
    ("running", "stopped", "terminate", 60, "power-off"),
    ("running", "terminated", "stop", 60, "lost"),
    ("stopping", "running", "stop", 60, "stay"),
    ("stopping", "stopped", "terminate", 60, "stopped"),
    ("stopped", "stopped", "stop", 60, "stay"),
    ("shutting-down", "running", "stop", 60, "stay"),
    ("shutting-down", "stopped", "stop", 60, "stay"),
    ("shutting-down", "terminated", "stop", 60, "terminated"),
]


@pytest.mark.parametrize(("ec2", "machine", "behavior", "seconds", "step"), STEPS)
def test_the_machines_state_decides_the_next_step(ec2, machine, behavior, seconds, step):
    assert next_step(ec2, machine, behavior, seconds) == step


def test_an_instance_that_boots_nothing_goes_through_ec2s_states():
    now = [0.0]
    machine = Stateless(lambda: now[0])
    machine.launch(
        Launch(
            "i-1",
            "ami",
            "v",
            "10.0.0.0/16",
            "s",
            "10.0.0.0/24",
            "10.0.0.4",
            "02:00:00:00:00:01",
            "ip-10-0-0-4",
            1,
            1024,
        )
    )
    seen = [machine.state("i-1")]
    for act in (
        None,
        lambda: machine.stop("i-1", force=False),
        lambda: machine.start("i-1"),
        lambda: machine.terminate("i-1"),
    ):
        if act:
            act()
        now[0] += BOOT_SECONDS
        seen.append(machine.state("i-1"))
    assert seen == ["pending", "running", "stopped", "running", "terminated"]
