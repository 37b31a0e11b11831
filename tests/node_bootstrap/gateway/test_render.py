"""What the gateway's programs are told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from node_bootstrap import assignment as a
from node_bootstrap.gateway import render
from node_bootstrap.gateway.layout import Files
from node_bootstrap.places import Places


def group(name: str, first: int) -> a.GatewayGroup:
    members = (
        a.Member(f"{name}-0", f"10.0.0.{first}", "primary", 0, 1),
        a.Member(f"{name}-1", f"10.0.0.{first + 1}", "headless", 1, 1),
    )
    return a.GatewayGroup(name, "serve", (f"http://10.0.0.{first}:8000",), 2, members, None)


@pytest.fixture
def gateway() -> a.Gateway:
    return a.Gateway(
        port=443,
        groups=(group("serve-0", 5), group("serve-1", 7)),
        keys=(),
        router_argv=(),
        tls=a.GatewayTls(("10.0.0.9",), "internal"),
        ca_key="",
        packages={},
        limits=a.GatewayLimits(1 << 20, 600.0, 60.0, 256, 600.0),
    )


@pytest.fixture
def told(gateway: a.Gateway) -> a.Assignment:
    empty = {
        f.name: "" for f in dataclasses.fields(a.Assignment) if f.default is dataclasses.MISSING
    }
    members = (a.Member("gateway", "10.0.0.9", "primary", 0, 0),)
    known = {"agent_port": 9400, "node": "gateway", "members": members, "gateway": gateway}
    return a.Assignment(**empty | known)  # pyright: ignore[reportArgumentType] - only what is read


def instances(job: dict) -> dict[str, str]:
    return {c["labels"]["instance"]: c["targets"][0] for c in job["static_configs"]}


def test_every_engine_agent_and_node_is_scraped(told: a.Assignment, gateway: a.Gateway) -> None:
    files = Files(Places(Path("/")))
    made = json.loads(render.prometheus_yml(told, gateway, files))
    jobs = {job["job_name"]: job for job in made["scrape_configs"]}
    assert instances(jobs["vllm"]) == {"serve-0": "10.0.0.5:8000", "serve-1": "10.0.0.7:8000"}
    agents = {
        "serve-0-0": "10.0.0.5:9400",
        "serve-0-1": "10.0.0.6:9400",
        "serve-1-0": "10.0.0.7:9400",
        "serve-1-1": "10.0.0.8:9400",
        "gateway": "10.0.0.9:9400",
    }
    assert instances(jobs["agent"]) == instances(jobs["node"]) == agents
    assert jobs["node"]["metrics_path"] == "/metrics/node"
    assert jobs["router"]["file_sd_configs"] == [{"files": [str(files.router_targets)]}]


def test_only_routers_that_run_are_targets() -> None:
    assert json.loads(render.router_targets({"b"})) == [
        {"targets": ["127.0.0.1:29002"], "labels": {"instance": "router-b"}}
    ]
    assert len(json.loads(render.router_targets({"a", "b"}))) == 2
    assert json.loads(render.router_targets(())) == []


def test_caddy_still_reads_the_body_of_a_request_that_waited_for_a_router(
    gateway: a.Gateway,
) -> None:
    limits = dataclasses.replace(gateway.limits, wait_seconds=180.0)
    text = render.caddyfile(dataclasses.replace(gateway, limits=limits))
    assert "read_body 240s" in text


def test_caddy_ends_a_request_whose_client_left(gateway: a.Gateway) -> None:
    """With `flush_interval -1` it would go on with it (Caddy's reverse_proxy)."""
    directives = [line.split() for line in render.caddyfile(gateway).splitlines()]
    assert not [words for words in directives if words[:1] == ["flush_interval"]]
