"""The gateway's agent and its routers: what systemd is told, and what is in their files."""

from __future__ import annotations

import dataclasses
import http.server
import threading
from types import SimpleNamespace

import pytest

from node_bootstrap import assignment as a
from node_bootstrap import durable
from node_bootstrap.gateway import layout, node
from node_bootstrap.gateway.layout import Files
from node_bootstrap.gateway.membership import Membership
from node_bootstrap.gateway.node import GatewayNode, Lent
from node_bootstrap.gateway.units import Look
from node_bootstrap.places import Places

STAYS, LEAVES = "http://10.0.0.1:8000", "http://10.0.0.2:8000"


class Router(http.server.ThreadingHTTPServer):
    """A router's own API: ready, and telling `status` to whoever takes workers from it."""

    def __init__(self):
        self.status, self.asked = 200, []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Router  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self):
        self.answer(200)

    def do_POST(self):
        self.server.asked.append(self.path)
        self.answer(self.server.status)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format, *args):  # noqa: A002 - the base's name
        pass


class Units:
    """systemd with both routers running."""

    def __init__(self):
        self.acts = []

    def looks(self, names):
        return dict.fromkeys(names, Look("active"))

    def act(self, verb, *names, wait=True):
        del wait
        self.acts.append((verb, *names))


@pytest.fixture
def router(monkeypatch):
    made = Router()
    monkeypatch.setattr(layout, "ROUTER_PORTS", {"a": made.server_port, "b": made.server_port})
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def units():
    return Units()


@pytest.fixture
def files(tmp_path):
    return Files(Places(tmp_path))


def lineup(agent, *serve):
    return dataclasses.replace(agent._wanted(), serve=serve)


@pytest.fixture
def agent(router, units, files, tmp_path, monkeypatch):
    """An agent whose router `a` has two groups, of which one has just left."""
    monkeypatch.setattr(node, "LOOK_SECONDS", 0.0)
    groups = tuple(
        a.GatewayGroup(name, "serve", (url,), 1, (a.Member(f"{name}-0", url, "primary", 0, 1),))
        for name, url in (("serve-0", STAYS), ("serve-1", LEAVES))
    )
    limits = a.GatewayLimits(1 << 20, 600.0, 60.0, 256, 600.0)
    gateway = a.Gateway(443, groups, (), (), None, "", {}, limits)
    empty = {
        f.name: "" for f in dataclasses.fields(a.Assignment) if f.default is dataclasses.MISSING
    }
    known = {
        "node": "gateway",
        "gateway": gateway,
        "probe": a.Probe("model", "Hello", 1, 5.0),
        "limits": a.Limits(60.0, 10.0, 5.0),
    }
    told = a.Assignment(**empty | known)  # pyright: ignore[reportArgumentType] - only what is read
    lent = Lent(lambda: "token", lambda _: "key", lambda *_: None, lambda: None, lambda: None)
    made = GatewayNode(told, lent, Places(tmp_path), units)
    seen = SimpleNamespace(membership=Membership(serve=("serve-0",)), groups=(1,), pairs=())
    made._watch = SimpleNamespace(  # pyright: ignore[reportAttributeAccessIssue]
        view=lambda: seen, came_round_at=1e12, close=lambda: None
    )
    made._prepared, made._asked_at = told, 1e12
    both = {"a": lineup(made, "serve-0", "serve-1")}
    made._held = dataclasses.replace(made._held, active="a", lineups=both)
    yield made
    made.close()


def test_a_group_that_left_is_not_in_what_systemd_starts_a_dead_router_with(agent, router, files):
    agent.tick()
    assert router.asked == [f"/remove_worker?url={LEAVES}"]
    listed = files.router_workers("a").read_text()
    assert STAYS in listed
    assert LEAVES not in listed


def test_a_router_that_does_not_let_go_of_a_group_is_followed_by_another(agent, router, units):
    router.status = 500
    agent.tick()
    agent.tick()
    assert ("restart", layout.router_unit("b")) in units.acts
    agent.tick()
    assert agent._held.active == "b"
    assert ("stop", layout.router_unit("a")) in units.acts


def test_an_agent_that_dies_while_it_takes_a_group_out_has_not_noted_that_it_did(
    agent, router, files, monkeypatch
):
    monkeypatch.setattr(node.front, "put", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        agent.tick()
    assert durable.load(files.routers, node._Saved) is None
