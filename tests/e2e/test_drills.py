"""What vLLM does not notice by itself, the agents do: noticed within 10 s, served again unaided."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from rehearsed import HEADLESS, PRIMARY, PROMPTS, Load, Rehearsed

from rehearsal.machine import faults
from rehearsal.paths import Home

pytestmark = pytest.mark.e2e

NOTICED_WITHIN_SECONDS = 10
SERVING_WITHIN_SECONDS = 120


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


def drill(
    stack: Rehearsed,
    rows: list[dict[str, Any]],
    name: str,
    fault: Callable[[], object],
    mend: Callable[[], object] = lambda: None,
) -> None:
    """Do the fault, time until the primary's agent began a new generation and until all answer."""
    before = stack.group()
    started = time.time()
    fault()
    stack.wait(
        "a new generation",
        lambda: stack.group().generation > before.generation,
        NOTICED_WITHIN_SECONDS + 10,
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
    assert noticed <= NOTICED_WITHIN_SECONDS


@pytest.mark.parametrize("load", [False, True], ids=["idle", "under-load"])
@pytest.mark.parametrize("kill", KILLS, ids=lambda k: k.name)
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


@pytest.mark.parametrize("load", [False, True], ids=["idle", "under-load"])
def test_a_cut_link_ends_the_generation_and_a_restored_one_begins_the_next(
    stack: Rehearsed, drills, reference, *, load: bool
) -> None:
    stack.wait_until_ready()
    home, instance = Home(stack.root), stack.instances()[HEADLESS]
    requests = Load(stack, {p: reference[p].text for p in PROMPTS})

    def restored_after_a_while() -> None:
        stack.wait("no answer while cut", lambda: stack.complete("x", timeout=3).code != 200, 30)
        time.sleep(10)
        assert "inactive" in stack.inside(
            HEADLESS, "systemctl", "is-active", "moe-role.service", check=False
        ), "a member without its primary must stop its vLLM"
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


@pytest.mark.parametrize("node", [PRIMARY, HEADLESS])
def test_a_killed_agent_takes_its_running_vllm_over(stack: Rehearsed, drills, node: str) -> None:
    stack.wait_until_ready()
    before = stack.group().generation
    started = time.time()
    stack.inside(node, "systemctl", "kill", "--signal=KILL", "--kill-whom=main", "moe-node.service")
    stack.wait(
        "the agent is back",
        lambda: stack.status(node).agent_started_at > started,
        NOTICED_WITHIN_SECONDS,
    )
    back = time.time() - started
    time.sleep(8)
    assert stack.group().phase == "ready"
    assert stack.group().generation == before, "vLLM must not be restarted for an agent's death"
    assert stack.every_rank_answers()
    drills.append(
        {
            "drill": f"agent of {node} killed",
            "noticed_seconds": round(back, 1),
            "serving_seconds": 0.0,
            "cause": "none: vLLM went on",
        }
    )


def test_a_node_that_is_gone_is_made_anew_by_the_next_up(stack: Rehearsed, drills) -> None:
    stack.wait_until_ready()
    gone = stack.instances()[HEADLESS]

    def power_off() -> None:
        stack.inside(HEADLESS, "systemctl", "poweroff", "--no-block")

    drill(stack, drills, "headless powered off, then `make up`", power_off, lambda: stack.run("up"))
    assert stack.instances()[HEADLESS] != gone
