"""Weights that lie in S3 already, listed by the node, with S3 as moto serves it; also throttled."""

from __future__ import annotations

import http.server
import threading
import time
import urllib.request

import boto3
import pytest

from node_bootstrap.agent.store import Store, clients
from node_bootstrap.assignment import Weights
from node_bootstrap.steps.base import Marks, StepError, run_step
from node_bootstrap.steps.prefix import PrefixWeightsStep

BUCKET = "moe-serving-test-123456789012"
FILES = {"config.json": b"{}", "model-1.safetensors": b"one" * 1000, "sub/two.bin": b"two" * 1000}
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


@pytest.fixture
def store(account):
    for path, content in FILES.items():
        account.s3.put_object(Bucket=BUCKET, Key=f"mine/m/{path}", Body=content)
    account.s3.put_object(Bucket=BUCKET, Key="mine/m/sub/", Body=b"")
    account.s3.put_object(Bucket=BUCKET, Key="mine/m2/config.json", Body=b"{}")
    return Store(BUCKET, "n", account.s3, account.ssm)


def step(tmp_path, store, prefix="mine/m/") -> PrefixWeightsStep:
    wanted = Weights(BUCKET, prefix, str(tmp_path / "models/org/m"), (), "prefix")
    files = (tmp_path / "weights.json", tmp_path / "list.json")
    return PrefixWeightsStep(wanted, store.read_object, store.list_objects, *files)


def marks() -> Marks:
    kept: dict[str, str] = {}
    return Marks(lambda name: kept.get(name, ""), kept.__setitem__, "boot-1")


def content(tmp_path) -> dict[str, bytes]:
    folder = tmp_path / "models/org/m"
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_all_that_lies_under_the_prefix_arrives_and_a_second_run_asks_nothing(tmp_path, store):
    report = run_step(step(tmp_path, store), marks())
    assert report.outcome == "CHANGED"
    assert content(tmp_path) == FILES

    def refuse(*_):
        raise AssertionError

    again = PrefixWeightsStep(
        step(tmp_path, store).wanted,
        refuse,
        refuse,
        tmp_path / "weights.json",
        tmp_path / "list.json",
    )
    second = run_step(again, marks())
    assert second.outcome == "NOCHANGE"
    assert second.seconds < 10


def test_what_is_added_to_the_bucket_later_does_not_change_what_is_served(tmp_path, store, account):
    run_step(step(tmp_path, store), marks())
    account.s3.put_object(Bucket=BUCKET, Key="mine/m/later.bin", Body=b"x")
    try:
        assert run_step(step(tmp_path, store), marks()).outcome == "NOCHANGE"
        assert content(tmp_path) == FILES
    finally:
        account.s3.delete_object(Bucket=BUCKET, Key="mine/m/later.bin")


def test_a_prefix_without_a_model_is_refused_with_its_name(tmp_path, store):
    with pytest.raises(StepError, match=r"s3://.*/mine/none/ has 0 objects and no config.json"):
        step(tmp_path, store, "mine/none/").apply(time.monotonic() + 60)


class Throttling(http.server.BaseHTTPRequestHandler):
    """S3 behind it, that says SlowDown to the next `left` requests."""

    def do_GET(self):
        self.server.asked += 1
        if self.server.left > 0:
            self.server.left -= 1
            self.reply(503, SLOW_DOWN)
            return
        request = urllib.request.Request(self.server.behind + self.path, headers=dict(self.headers))
        with urllib.request.urlopen(request) as answer:
            self.reply(200, answer.read())

    def reply(self, status: int, body: bytes):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def throttled(account, store, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Throttling)
    server.behind, server.left, server.asked = account.endpoint, 0, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "admin")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "admin")
    boto3.setup_default_session()
    make = clients("us-east-1")
    yield server, Store(BUCKET, "n", make("s3"), make("ssm"), wait_seconds=0.01)
    server.shutdown()
    server.server_close()


def test_s3_that_throttles_a_little_is_waited_for(tmp_path, throttled):
    server, store = throttled
    server.left = 2
    assert run_step(step(tmp_path, store), marks()).outcome == "CHANGED"
    assert content(tmp_path) == FILES


def test_s3_that_throttles_without_end_fails_the_step_and_the_next_run_goes_on(tmp_path, throttled):
    server, store = throttled
    server.left = 10**6
    report = run_step(step(tmp_path, store), marks())
    assert report.outcome == "FAILED"
    assert "SlowDown" in report.detail
    server.left = 0
    assert run_step(step(tmp_path, store), marks()).outcome == "CHANGED"
    assert content(tmp_path) == FILES
