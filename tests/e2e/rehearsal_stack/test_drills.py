"""What vLLM does not notice by itself, the agents do: noticed within 10 s, served again unaided."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from rehearsed import HEADLESS, PRIMARY, PROMPTS, Load, Rehearsed

from rehearsal.machine import faults
from rehearsal.paths import Home

pytestmark = pytest.mark.e2e

NOTICED_WITHIN_SECONDS = 10
SERVING_WITHIN_SECONDS = 300


@dataclass(frozen=True)
class Drill:
    """One fault: what is done to which node."""

    name: str
    node: str
    pattern: str


KILLS = (
    Drill("headless-engine-killed", HEADLESS, "VLLM::EngineCore"),
    Drill("primary-engine-killed", PRIMARY, "VLLM::EngineCore"),
    Drill("api-server-killed", PRIMARY, "vllm.entrypoints.cli.main serve"),
    Drill("dp-coordinator-killed", PRIMARY, "VLLM::DPCoordinator"),
    Drill("headless-main-killed", HEADLESS, "vllm.entrypoints.cli.main serve"),
)
EACH_RUN = {("headless-engine-killed", True)}
"""What every run of the tests does, by name and whether under load; the others: `make drills`."""


def kills() -> Iterator[object]:
    for kill, load in itertools.product(KILLS, (False, True)):
        marks = () if (kill.name, load) in EACH_RUN else (pytest.mark.drill,)
        name = f"{kill.name}-{'under-load' if load else 'idle'}"
        yield pytest.param(kill, load, id=name, marks=marks)


def drill(
    stack: Rehearsed,
    rows: list[dict[str, Any]],
    name: str,
    fault: Callable[[], object],
    mend: Callable[[], object] = lambda: None,
) -> None:
    """Do the fault, time until the primary's agent began a new generation and until all answer."""
    before = stack.group()
    fault()
    started = time.time()
    stack.wait(
        "a new generation",
        lambda: stack.group().generation > before.generation,
        NOTICED_WITHIN_SECONDS + 50,
    )
    noticed = stack.group().restarts[-1].noticed_at - started
    mend()
    mended = time.time()
    stack.wait_until_ready(SERVING_WITHIN_SECONDS)
    rows.append(
        {
            "drill": name,
            "noticed_seconds": round(noticed, 1),
            "serving_seconds": round(time.time() - mended, 1),
            "cause": stack.group().restarts[-1].cause,
        }
    )
    # A primary that stood still itself gives the others that much more time.
    assert noticed <= 3 * NOTICED_WITHIN_SECONDS


def lives_on(stack: Rehearsed, act: Callable[[], object]) -> None:
    """Do it, after which the group must go on as it is.

    Again where a busy machine kept an agent silent for so long that the others had to act.
    """
    for _ in range(3):
        stack.wait_until_ready()
        before = stack.group().generation
        act()
        time.sleep(8)
        group = stack.group()
        if group.generation == before:
            assert group.phase == "ready"
            assert stack.every_rank_answers()
            return
        cause = group.restarts[-1].cause
        assert "silent for" in cause or "no longer runs its vLLM" in cause, cause
    pytest.fail("vLLM must not be restarted for an agent's death")


@pytest.mark.parametrize(("kill", "load"), kills())
def test_a_killed_process_restarts_the_whole_group(
    stack: Rehearsed, drills, reference, kill: Drill, *, load: bool
) -> None:
    stack.wait_until_ready()
    requests = Load(stack, {p: reference[p].text for p in PROMPTS})
    with requests.running() if load else contextlib.nullcontext():
        name = f"{kill.name}, {'under load' if load else 'idle'}"
        drill(
            stack,
            drills,
            name,
            lambda: faults.kill(Home(stack.root), stack.instances()[kill.node], kill.pattern),
        )
    assert not requests.wrong()
    assert not load or any(answer.code == 200 for _, _, answer in requests.answers)


@pytest.mark.drill
@pytest.mark.parametrize("load", [False, True], ids=["idle", "under-load"])
def test_a_cut_link_ends_the_generation_and_a_restored_one_begins_the_next(
    stack: Rehearsed, drills, reference, *, load: bool
) -> None:
    stack.wait_until_ready()
    home, instance = Home(stack.root), stack.instances()[HEADLESS]
    requests = Load(stack, {p: reference[p].text for p in PROMPTS})

    def restored_after_a_while() -> None:
        stack.wait("no answer while cut", lambda: stack.complete("x", timeout=3).code != 200, 30)
        ask = (HEADLESS, "systemctl", "is-active", "moe-role.service")
        stack.wait(
            "a member without its primary stops its vLLM",
            lambda: stack.inside(*ask, check=False).strip() == "inactive",
            60,
        )
        faults.restore_link(home, instance)

    with requests.running() if load else contextlib.nullcontext():
        drill(
            stack,
            drills,
            f"headless cut off, {'under load' if load else 'idle'}",
            lambda: faults.cut_link(home, instance),
            restored_after_a_while,
        )
    assert not requests.wrong()


@pytest.mark.parametrize("node", [PRIMARY, pytest.param(HEADLESS, marks=pytest.mark.drill)])
def test_a_killed_agent_takes_its_running_vllm_over(stack: Rehearsed, drills, node: str) -> None:
    kill = ("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "moe-node.service")
    back: list[float] = []

    def killed() -> None:
        began = time.time()
        stack.inside(node, *kill)
        back.append(
            stack.wait("the agent is back", lambda: stack.status(node).agent_started_at > began, 90)
        )

    lives_on(stack, killed)
    drills.append(
        {
            "drill": f"agent of {node} killed",
            "noticed_seconds": round(back[-1], 1),
            "serving_seconds": 0.0,
            "cause": "none: vLLM went on",
        }
    )


HELD = {
    # The agent looks at the node before its steps do: the second time is the gate's.
    "hardware": ("rm /var/lib/moe/steps/hardware", "ip", "! mkdir /run/held.first 2>/dev/null"),
    "role": (
        "echo >> /etc/systemd/system/moe-role.service",
        "systemctl",
        '[ "$1" = daemon-reload ]',
    ),
}
"""Step -> how its work is undone, the program that it is held in, and when."""


def hold(stack: Rehearsed, step: str) -> str:
    """Have the headless node's agent begin a step and never end it; returns what lets it go on."""
    undo, program, when = HELD[step]
    held = f"/usr/local/sbin/{program}"
    script = f'#!/bin/sh\nif {when}; then touch /run/held; exec sleep 60; fi\nexec REAL "$@"\n'
    shell = (
        f"{undo} && real=$(command -v {program}) && printf %s {shlex.quote(script)} |"
        f"sed s:REAL:$real: > {held} && chmod +x {held} &&"
        "/usr/bin/systemctl restart --no-block moe-node.service"
    )
    began = time.time()
    stack.inside(HEADLESS, "bash", "-c", shell)

    def in_the_step() -> bool:
        status = stack.status(HEADLESS)
        named = status.phase == step and step not in {s.name for s in status.steps}
        there = stack.inside(HEADLESS, "ls", "/run/held", check=False).strip() == "/run/held"
        return status.agent_started_at > began and named and there

    stack.wait(f"in the middle of {step}", in_the_step, 90)
    return f"rm -rf {held} /run/held*"


@pytest.mark.parametrize(
    ("step", "outcome"),
    [pytest.param("hardware", "NOCHANGE", marks=pytest.mark.drill), ("role", "CHANGED")],
)
def test_an_agent_killed_in_the_middle_of_a_step_goes_on_with_it_and_vllm_never_stops(
    stack: Rehearsed, step: str, outcome: str
) -> None:
    def killed_in_it() -> None:
        let_go = hold(stack, step)
        killed = time.time()
        kill = f"{let_go}; systemctl kill --signal=KILL moe-node.service"
        stack.inside(HEADLESS, "bash", "-c", kill)

        def done() -> bool:
            status = stack.status(HEADLESS)
            return status.agent_started_at > killed and status.steps[-1].name == "role"

        stack.wait("every step done", done, 90)

    lives_on(stack, killed_in_it)
    outcomes = {s.name: s.outcome for s in stack.status(HEADLESS).steps}
    assert outcomes[step] == outcome
    unread = ("systemctl", "show", "--property=NeedDaemonReload", "--value", "moe-role.service")
    assert stack.inside(HEADLESS, *unread).strip() == "no"


@pytest.mark.drill
def test_a_node_that_is_gone_is_made_anew_by_the_next_up(stack: Rehearsed, drills) -> None:
    stack.wait_until_ready()
    gone = stack.instances()[HEADLESS]

    def power_off() -> None:
        stack.inside(HEADLESS, "systemctl", "poweroff", "--no-block")

    drill(stack, drills, "headless powered off, then `make up`", power_off, lambda: stack.run("up"))
    assert stack.instances()[HEADLESS] != gone
