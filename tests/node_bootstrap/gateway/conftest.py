"""Stand-ins for engines: vLLM's HTTP, as far as a probe speaks it."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

from node_bootstrap.gateway.pair_probe import Side

HANDED = {"do_remote_prefill": True, "remote_block_ids": [[1]], "remote_host": "10.0.0.5"}


class Engine(http.server.ThreadingHTTPServer):
    """An engine of one rank: what it answers is set by the test, what it was asked is kept."""

    def __init__(self):
        self.asked, self.transfers, self.failed, self.moves = [], 0, 0, True
        self.metrics, self.loses = "", 0
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
            f'vllm:nixl_num_failed_transfers_total{{engine="0"}} {self.server.failed}\n'
            f"{self.server.metrics}",
        )

    def do_POST(self):
        engine = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        engine.asked.append((self.headers["Authorization"], body))
        params = body.get("kv_transfer_params") or {}
        if params.get("do_remote_prefill") and engine.moves:
            engine.transfers += 1
            engine.failed += engine.loses
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
def make_engine():
    made = []

    def make():
        made.append(Engine())
        return made[-1]

    yield make
    for engine in made:
        engine.shutdown()
        engine.server_close()
