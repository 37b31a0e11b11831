"""How a pair is judged by what two engines answer; with vLLM itself: tests/e2e."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

from node_bootstrap.gateway import pair_probe
from node_bootstrap.gateway.pair_probe import Question, Side, combinations, probe_pair

QUESTION = Question("m", max_tokens=2, timeout_seconds=2.0)
HANDED = {"do_remote_prefill": True, "remote_block_ids": [[1]], "remote_host": "10.0.0.5"}


class Engine(http.server.ThreadingHTTPServer):
    """An engine of one rank: what it answers is set by the test, what it was asked is kept."""

    def __init__(self):
        self.asked, self.transfers, self.moves = [], 0, True
        self.tokens, self.handed, self.status = ["a", "b"], HANDED, 200
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def side(self, group):
        return Side(group, "127.0.0.1", self.server_port, 1, "key")


class Handler(http.server.BaseHTTPRequestHandler):
    server: Engine

    def do_GET(self):
        count = self.server.transfers
        self.send(
            200,
            f'vllm:nixl_bytes_transferred_count{{engine="0"}} {count}\n'
            f'vllm:nixl_bytes_transferred_sum{{engine="0"}} {count * 64}\n'
            f'vllm:external_prefix_cache_hits_total{{engine="0"}} {count * 9}\n'
            f'vllm:nixl_num_failed_transfers_total{{engine="0"}} 0\n',
        )

    def do_POST(self):
        engine = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        engine.asked.append((self.headers["Authorization"], body))
        params = body.get("kv_transfer_params") or {}
        if params.get("do_remote_prefill") and engine.moves:
            engine.transfers += 1
        tokens = engine.tokens[: body["max_tokens"]]
        logprobs = {"tokens": tokens, "top_logprobs": [{t: 0.0} for t in tokens]}
        document: dict[str, object] = {"choices": [{"logprobs": logprobs}]}
        if params.get("do_remote_decode"):
            document["kv_transfer_params"] = engine.handed
        self.send(engine.status, json.dumps(document))

    def send(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format, *args):  # noqa: A002 - the base's name
        pass


@pytest.fixture
def engines(monkeypatch):
    monkeypatch.setattr(pair_probe, "COUNTERS_SECONDS", 0.3)
    pair = Engine(), Engine()
    yield pair
    for engine in pair:
        engine.shutdown()
        engine.server_close()


def report(engines):
    prefill, decode = engines
    return probe_pair(prefill.side("prefill-0"), decode.side("decode-0"), QUESTION)


def test_a_pair_is_good_when_the_answer_is_right_and_kv_moved(engines):
    found = report(engines)
    assert (found.ok, found.reason) == (True, "")
    assert (found.ranks, found.transfers, found.bytes_moved) == (((0, 0),), 1, 64)


def test_the_prompt_goes_to_prefill_first_and_what_it_hands_over_to_decode(engines):
    report(engines)
    (_, first), (_, alone) = engines[0].asked
    ((key, rest),) = engines[1].asked
    assert first["kv_transfer_params"]["do_remote_decode"] is True
    assert first["max_tokens"] == 1
    assert rest["kv_transfer_params"] == HANDED
    assert "kv_transfer_params" not in alone
    assert first["prompt"] == rest["prompt"] == alone["prompt"]
    assert key == "Bearer key"


def test_no_two_probes_ask_the_same_or_the_prefix_cache_would_answer(engines):
    report(engines)
    report(engines)
    assert engines[1].asked[0][1]["prompt"] != engines[1].asked[1][1]["prompt"]


def test_a_right_answer_without_transfer_is_no_proof(engines):
    engines[1].moves = False
    found = report(engines)
    assert not found.ok
    assert "decode-0: rank 0" in found.reason
    assert "it computed the prompt itself" in found.reason


def test_a_wrong_answer_is_told_with_its_place(engines):
    engines[1].tokens = ["a", "z"]
    assert report(engines).reason == (
        "prefill-0 rank 0 to decode-0 rank 0: a wrong answer: token 1 is 'z' instead of 'b'"
    )


def test_a_prefill_group_that_hands_nothing_over_is_named(engines):
    engines[0].handed = None
    assert report(engines).reason.startswith("prefill-0: rank 0 handed no KV over")


def test_a_refusal_is_told_with_its_words(engines):
    engines[1].status = 500
    found = report(engines)
    assert "decode-0: rank 0, told to take KV from 10.0.0.5" in found.reason
    assert "HTTP 500" in found.reason


def test_a_group_that_is_gone_is_told(engines):
    engines[0].shutdown()
    engines[0].server_close()
    assert "prefill-0: rank 0 broke off" in report(engines).reason


def test_small_groups_are_tried_in_every_combination_and_large_ones_on_every_rank():
    assert combinations(2, 2) == ((0, 0), (0, 1), (1, 0), (1, 1))
    many = combinations(16, 64)
    assert len(many) == 64
    assert {d for _, d in many} == set(range(64))
    assert {p for p, _ in many} == set(range(16))
