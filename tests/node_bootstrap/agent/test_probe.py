"""Asking the ranks of an engine that answers, hangs, is busy, or refuses."""

from __future__ import annotations

import dataclasses
import http.server
import json
import queue
import threading
import time

import pytest

from node_bootstrap.agent import probe
from node_bootstrap.agent.protocol import Pair
from node_bootstrap.assignment import Api

PAIR = Pair("r1", 1)


class Engine(http.server.BaseHTTPRequestHandler):
    """Answers as the server's `mode` says; counts tokens while `mode` is busy."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.headers, body))
        if self.server.mode in ("hang", "busy"):
            self.server.over.wait(20)
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.answer.encode())

    def do_GET(self):
        if self.server.mode == "busy":
            self.server.tokens += 5
        self.send_response(200)
        self.end_headers()
        lines = (
            f'vllm:generation_tokens_total{{engine="{n}",model_name="m"}} {self.server.tokens}.0\n'
            for n in (0, 1)
        )
        self.wfile.write("".join(lines).encode())
        self.wfile.write(b'vllm:num_requests_waiting{engine="0"} 400.0\nvllm:other 1.0\n')

    def log_message(self, *args):
        pass


@pytest.fixture
def engine():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    server.daemon_threads = True
    server.block_on_close = False
    server.mode, server.status, server.tokens, server.asked = "answer", 200, 0, []
    server.answer = json.dumps({"choices": [{"text": "x"}]})
    server.over = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def target(engine, ranks=1):
    return probe.Target(PAIR, "127.0.0.1", engine.server_port, "key", "m", "Hi", ranks, 0.1, 0.4)


def results(engine, *, ready=True, ranks=1):
    told = queue.Queue()
    return told, probe.Prober(target(engine, ranks), told.put, lambda: ready)


def test_a_rank_is_asked_for_one_token_by_name(engine):
    assert probe.complete(target(engine), 3, 1) == "x"
    headers, body = engine.asked[0]
    assert headers["X-data-parallel-rank"] == "3"
    assert headers["Authorization"] == "Bearer key"
    assert body == {"model": "m", "prompt": "Hi", "max_tokens": 1, "temperature": 0}


def test_every_rank_is_asked_side_by_side(engine):
    told, prober = results(engine, ranks=3)
    seen = set()
    while seen != {0, 1, 2}:
        seen.add(told.get(timeout=30).rank)
    prober.stop()


def test_an_engine_error_is_told_with_its_words(engine):
    engine.status, engine.answer = 500, "EngineCore encountered an issue"
    told, prober = results(engine)
    assert told.get(timeout=30).error == "HTTP 500: EngineCore encountered an issue"
    prober.stop()


def test_an_answer_that_is_no_completion_is_an_error(engine):
    engine.answer = "{}"
    with pytest.raises(probe.ProbeError, match="no completion"):
        probe.complete(target(engine), 0, 1)


def test_a_hanging_engine_is_told_as_such(engine):
    engine.mode = "hang"
    told, prober = results(engine)
    assert told.get(timeout=30).error == "no answer within 0.4 s"
    prober.stop()


def test_an_engine_that_makes_tokens_for_others_is_excused(engine):
    engine.mode = "busy"
    told, prober = results(engine)
    with pytest.raises(queue.Empty):
        told.get(timeout=3)
    prober.stop()


def test_what_a_busy_engine_told_of_itself_is_kept(engine):
    engine.mode = "busy"
    _, prober = results(engine)
    assert prober.metrics() is None
    began = time.monotonic()
    while prober.metrics() is None and time.monotonic() - began < 60:
        time.sleep(0.05)
    prober.stop()
    assert prober.metrics().largest == {"vllm:num_requests_waiting": 400.0}


def test_an_engine_is_not_excused_for_ever(engine, monkeypatch):
    monkeypatch.setattr(probe, "BUSY_SECONDS", 1.0)
    engine.mode = "busy"
    told, prober = results(engine)
    assert told.get(timeout=30).error == "no answer within 0.4 s"
    prober.stop()


def test_a_full_queue_is_load_not_a_fault(engine):
    engine.status, engine.answer = 429, "too many"
    threading.Thread(target=make_tokens, args=(engine,), daemon=True).start()
    told, prober = results(engine)
    with pytest.raises(queue.Empty):
        told.get(timeout=2)
    prober.stop()


def make_tokens(engine):
    while not engine.over.wait(0.1):
        engine.tokens += 1


def test_while_the_group_starts_a_refused_connection_is_asked_again_soon(engine):
    engine.shutdown()
    engine.server_close()
    told, prober = results(engine, ready=False)
    began = time.monotonic()
    for _ in range(3):
        assert "refused" in told.get(timeout=30).error
    assert time.monotonic() - began < 10
    prober.stop()


def test_tokens_are_counted_by_engine():
    metrics = (
        'vllm:generation_tokens_total{engine="0",model_name="m"} 700.0\n'
        'vllm:generation_tokens_total{engine="1",model_name="m"} 744.0\n'
        'vllm:generation_tokens_created{engine="1",model_name="m"} 1.7e+09\n'
    )
    assert probe.generation_tokens(metrics) == {0: 700.0, 1: 744.0}


def test_with_several_apis_each_rank_is_asked_at_its_own_by_the_number_it_has_there(engine):
    own = Api("127.0.0.1", engine.server_port, first_rank=2, ranks=2)
    away = Api("127.0.0.1", 9, first_rank=0, ranks=2)
    several = dataclasses.replace(target(engine, ranks=4), apis=(away, own))
    assert probe.complete(several, 3, 2.0) == "x"
    assert engine.asked[-1][0]["X-data-parallel-rank"] == "1"
    with pytest.raises(OSError, match="refused"):
        probe.complete(several, 1, 2.0)
