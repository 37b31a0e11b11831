"""The model's files on a node, with S3 as moto serves it."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import os
import threading
import time
import urllib.request
from pathlib import Path

import boto3
import pytest

from node_bootstrap.agent.store import Store
from node_bootstrap.assignment import WeightFile, Weights
from node_bootstrap.steps.base import StepError
from node_bootstrap.steps.weights import WeightsStep

BUCKET = "moe-serving-test-123456789012"
FILES = {"config.json": b"{}", "shards/1.bin": b"one" * 1000, "shards/2.bin": b"two" * 1000}


class Counting:
    """Reads from the bucket and remembers what."""

    def __init__(self, account):
        self.store = Store(BUCKET, "n", account.s3, account.ssm)
        self.keys = []

    def __call__(self, bucket, key, start=0):
        self.keys.append(f"{key} from {start}" if start else key)
        return self.store.read_object(bucket, key, start)


def entry(path, content):
    return WeightFile(path, len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture
def reader(account):
    for path, content in FILES.items():
        account.s3.put_object(Bucket=BUCKET, Key=f"models/m/{path}", Body=content)
    return Counting(account)


@pytest.fixture
def step(tmp_path, reader):
    files = tuple(entry(path, content) for path, content in FILES.items())
    wanted = Weights(BUCKET, "models/m/", str(tmp_path / "models/m"), files)
    return WeightsStep(wanted, reader, tmp_path / "weights.json")


def fetch(step):
    step.apply(time.monotonic() + 60)
    assert step.check().done


def folder(step):
    return Path(step.wanted.destination)


def test_all_files_arrive_below_the_destination(step):
    assert not step.check().done
    fetch(step)
    assert {p: (folder(step) / p).read_bytes() for p in FILES} == FILES


def test_what_is_there_is_not_fetched_again(step, reader):
    fetch(step)
    reader.keys.clear()
    fetch(step)
    assert reader.keys == []


def test_after_a_break_only_the_missing_files_are_fetched(step, reader):
    fetch(step)
    (folder(step) / "shards/2.bin").unlink()
    (folder(step) / "shards/2.bin.part").write_bytes(b"tw")
    reader.keys.clear()
    fetch(step)
    assert reader.keys == ["models/m/shards/2.bin from 2"]
    assert not (folder(step) / "shards/2.bin.part").exists()


def test_a_part_that_turns_out_wrong_is_thrown_away_and_fetched_whole(step, reader):
    fetch(step)
    (folder(step) / "shards/2.bin").unlink()
    (folder(step) / "shards/2.bin.part").write_bytes(b"\0\0")
    reader.keys.clear()
    fetch(step)
    assert reader.keys == ["models/m/shards/2.bin from 2", "models/m/shards/2.bin"]
    assert (folder(step) / "shards/2.bin").read_bytes() == FILES["shards/2.bin"]


def test_without_a_known_digest_a_part_is_not_gone_on_with(step, reader):
    files = tuple(dataclasses.replace(f, sha256=None) for f in step.wanted.files)
    loose = dataclasses.replace(step, wanted=dataclasses.replace(step.wanted, files=files))
    folder(step).joinpath("shards").mkdir(parents=True)
    (folder(step) / "shards/2.bin.part").write_bytes(b"xx")
    fetch(loose)
    assert "models/m/shards/2.bin" in reader.keys
    assert (folder(step) / "shards/2.bin").read_bytes() == FILES["shards/2.bin"]


class Cutting(http.server.BaseHTTPRequestHandler):
    """S3 behind it, whose connection breaks once in the middle of each object."""

    def do_GET(self):
        self.server.ranges.append(self.headers.get("Range"))
        request = urllib.request.Request(self.server.behind + self.path, headers=dict(self.headers))
        with urllib.request.urlopen(request) as answer:
            body = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", answer.headers["ETag"])
        self.end_headers()
        whole = self.headers.get("Range") is not None
        self.wfile.write(body if whole else body[: len(body) // 2])

    def log_message(self, *args):
        pass


@pytest.fixture
def cut(account, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cutting)
    server.behind, server.ranges = account.endpoint, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    keys = {"aws_access_key_id": "admin", "aws_secret_access_key": "admin"}
    url = f"http://127.0.0.1:{server.server_port}"
    s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)
    yield server, Store(BUCKET, "n", s3, None, wait_seconds=0.01)
    server.shutdown()
    server.server_close()


def test_a_transfer_that_breaks_goes_on_where_it_broke(step, cut, reader):
    server, store = cut
    fetch(dataclasses.replace(step, read=store.read_object))
    assert {p: (folder(step) / p).read_bytes() for p in FILES} == FILES
    assert sorted(filter(None, server.ranges)) == ["bytes=1-", "bytes=1500-", "bytes=1500-"]


def test_a_file_that_was_changed_behind_the_nodes_back_is_fetched_again(step, reader):
    fetch(step)
    target = folder(step) / "shards/1.bin"
    target.write_bytes(b"ONE" * 1000)
    os.utime(target, ns=(0, 0))
    assert not step.check().done
    fetch(step)
    assert target.read_bytes() == FILES["shards/1.bin"]


def test_files_that_an_image_brought_are_checked_not_fetched(step, reader):
    for path, content in FILES.items():
        (folder(step) / path).parent.mkdir(parents=True, exist_ok=True)
        (folder(step) / path).write_bytes(content)
    fetch(step)
    assert reader.keys == []


def test_files_that_do_not_belong_are_removed(step):
    fetch(step)
    (folder(step) / "old.safetensors").write_bytes(b"x")
    assert "1 to remove" in step.check().detail
    fetch(step)
    assert not (folder(step) / "old.safetensors").exists()


def test_a_changed_object_is_an_error_and_gets_no_name(step, account):
    account.s3.put_object(Bucket=BUCKET, Key="models/m/shards/1.bin", Body=b"ONE" * 1000)
    with pytest.raises(StepError, match=r"1 of 3 files.*\n.*shards/1.bin has 3000 bytes"):
        step.apply(time.monotonic() + 60)
    assert [p.name for p in folder(step).rglob("*.bin*")] == ["2.bin"]


def test_a_missing_object_is_named_with_what_to_do(step, account):
    account.s3.delete_object(Bucket=BUCKET, Key="models/m/config.json")
    with pytest.raises(StepError, match=r"models/m/config.json can't be read: NoSuchKey.*deploy"):
        step.apply(time.monotonic() + 60)


def test_more_than_the_disk_holds_fails_before_anything_is_fetched(step, reader):
    huge = dataclasses.replace(step.wanted, files=(WeightFile("big.bin", 10**18),))
    with pytest.raises(StepError, match=r"give the node a larger disk"):
        dataclasses.replace(step, wanted=huge).apply(time.monotonic() + 60)
    assert reader.keys == []


def test_a_transfer_past_its_time_ends(step):
    with pytest.raises(StepError, match=r"not done in"):
        step.apply(time.monotonic() - 1)


@pytest.mark.parametrize("destination", ["/", "/var/lib", "models/m", "/var/lib/../../x/y"])
def test_a_folder_that_is_not_the_models_own_is_never_emptied(step, destination):
    wanted = dataclasses.replace(step.wanted, destination=destination)
    with pytest.raises(StepError, match=r"no folder of a model's own"):
        dataclasses.replace(step, wanted=wanted).apply(time.monotonic() + 60)


def test_a_file_can_not_be_placed_outside_of_the_folder(step):
    wanted = dataclasses.replace(step.wanted, files=(WeightFile("../../etc/passwd", 1),))
    with pytest.raises(StepError, match=r"outside of its folder"):
        dataclasses.replace(step, wanted=wanted).apply(time.monotonic() + 60)
