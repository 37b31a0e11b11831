"""What the gateway's Prometheus sees of a stack: every engine, router, agent and node."""

from __future__ import annotations

import json
import urllib.parse
from collections import defaultdict
from typing import Any

import pytest
from prefill_decode import NODES, PrefillDecode

pytestmark = pytest.mark.e2e

PROMETHEUS = ("127.0.0.1", 9090)
ALL_NODES = {*NODES, "gateway"}
FIXED = {
    "vllm": {"prefill-0", "decode-0"},
    "agent": ALL_NODES,
    "node": ALL_NODES,
    "caddy": {"caddy"},
    "desk": {"desk"},
    "prometheus": {"prometheus"},
}


def ask(pd: PrefillDecode, path: str) -> Any:
    answer = json.loads(pd.get(*PROMETHEUS, f"/api/v1/{path}"))
    assert answer["status"] == "success", answer
    return answer["data"]


def targets(pd: PrefillDecode) -> dict[str, dict[str, str]]:
    """Job -> instance -> health."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for target in ask(pd, "targets?state=active")["activeTargets"]:
        found[target["labels"]["job"]][target["labels"]["instance"]] = target["health"]
    return found


def series(pd: PrefillDecode, query: str, *labels: str) -> set[tuple[str, ...]]:
    found = ask(pd, f"query?{urllib.parse.urlencode({'query': query})}")["result"]
    return {tuple(one["metric"][label] for label in labels) for one in found}


def all_up(pd: PrefillDecode) -> bool:
    found = targets(pd)
    named = {*FIXED, "router"} <= set(found)
    return named and all(health == "up" for job in found.values() for health in job.values())


def test_every_engine_router_agent_and_node_is_scraped_and_up(pd: PrefillDecode) -> None:
    pd.wait("every target is up", lambda: all_up(pd), 60)
    found = {job: set(instances) for job, instances in targets(pd).items()}
    routers = found.pop("router")
    assert found == FIXED
    states = pd.inside(
        "gateway", "systemctl", "is-active", "moe-router@a", "moe-router@b", check=False
    )
    running = [
        f"router-{slot}"
        for slot, state in zip("ab", states.split(), strict=True)
        if state == "active"
    ]
    assert routers == set(running)


def test_what_is_scraped_covers_every_rank_and_every_machine(pd: PrefillDecode) -> None:
    pd.wait("scraped", lambda: bool(series(pd, "vllm:num_requests_running", "engine")), 30)
    ranks = {(group, rank) for group in ("prefill-0", "decode-0") for rank in ("0", "1")}
    assert series(pd, "vllm:num_requests_running", "instance", "engine") == ranks
    every = {(node,) for node in ALL_NODES}
    assert series(pd, "moe_node_phase", "instance") == every
    for name in ("node_memory_MemAvailable_bytes", "node_load1", "node_filesystem_avail_bytes"):
        assert series(pd, name, "instance") == every
    assert series(pd, "node_network_receive_bytes_total", "instance") == every


def test_a_program_that_stays_down_is_the_gateways_fault_until_its_agent_has_started_it(
    pd: PrefillDecode,
) -> None:
    pd.inside("gateway", "systemctl", "stop", "moe-prometheus.service")
    pd.wait("it is told", lambda: "moe-prometheus.service is inactive: no metrics" in fault(pd), 20)
    pd.wait("it runs again", lambda: all_up(pd), 60)
    pd.wait("the fault is gone", lambda: not fault(pd), 20)


def fault(pd: PrefillDecode) -> str:
    told = pd.status("gateway").fault
    return told.what if told else ""
