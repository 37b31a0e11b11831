"""Connections to a node that is gone without a word."""

from __future__ import annotations

import os
import socket
import time

import pytest

from node_bootstrap import assignment as a
from node_bootstrap.gateway import cut


def group(url: str) -> a.GatewayGroup:
    member = a.Member("serve-0-0", "10.0.0.1", "primary", 0, 1)
    return a.GatewayGroup("serve-0", "serve", (url,), 1, (member,))


@pytest.fixture
def ended():
    return []


@pytest.fixture
def cutter(ended, monkeypatch):
    monkeypatch.setattr(cut, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(cut, "AGAIN_SECONDS", 0.05)
    made = cut.Cutter(lambda address, port: ended.append((address, port)))
    yield made
    made.close()


def wait(holds):
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def test_those_to_a_silent_group_that_takes_no_connection_are_ended(cutter, ended, monkeypatch):
    monkeypatch.setattr(cut, "unreachable", lambda *_: True)
    cutter.look({"serve-0": group("http://10.0.0.1:8000")})
    wait(lambda: len(ended) > 1)
    assert set(ended) == {("10.0.0.1", 8000)}


def test_a_silent_group_that_still_answers_keeps_its_requests(cutter, ended):
    with socket.create_server(("127.0.0.1", 0)) as engine:
        url = f"http://127.0.0.1:{engine.getsockname()[1]}"
        cutter.look({"serve-0": group(url)})
        time.sleep(0.5)
    assert not ended


def test_a_group_that_is_heard_again_is_let_be(cutter, ended, monkeypatch):
    monkeypatch.setattr(cut, "unreachable", lambda *_: True)
    cutter.look({"serve-0": group("http://10.0.0.1:8000")})
    wait(lambda: ended)
    cutter.look({})
    time.sleep(0.2)
    before = len(ended)
    time.sleep(0.3)
    assert len(ended) == before


def test_a_refused_connection_is_an_answer():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert not cut.unreachable("127.0.0.1", bound.getsockname()[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may end connections")
def test_an_ended_connection_fails_at_once_on_this_side():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address, port = server.getsockname()
        with socket.create_connection((address, port), timeout=20) as waiting:
            held, _ = server.accept()
            cut.end_connections(address, port)
            with pytest.raises(ConnectionAbortedError):
                waiting.recv(1)
            held.close()
