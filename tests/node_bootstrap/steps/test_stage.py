"""Weights on their way from Hugging Face to S3, and those who wait for them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
import time

import pytest

from node_bootstrap.agent.shelf import BucketShelf
from node_bootstrap.assignment import Stage, Weights
from node_bootstrap.steps.base import Marks, StepError, run_step
from node_bootstrap.steps.stage import AwaitStep, Staged, StageStep, manifest_key, progress_key
from rehearsal.hub import HubFault

BUCKET = "moe-serving-test-123456789012"
LARGE = "model.safetensors"
PART = 5 * 2**20
"""The least that S3 takes of a part that isn't the last."""


@pytest.fixture
def large(hub):
    """A file of three parts."""
    (hub.folder / LARGE).write_bytes(b"0123456789abcdef" * (12 * 2**16 + 1))
    hub.serve()
    return hub


@pytest.fixture
def step(hub, account, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr("node_bootstrap.steps.hub.FIRST_WAIT_SECONDS", 0.01)
    prefix = f"models/{hash(str(tmp_path))}/"
    stage = Stage("org/tiny", hub.commit, None, "gateway")
    weights = Weights(BUCKET, prefix, "", (), "nothing", stage)
    shelf = BucketShelf(BUCKET, account.s3)
    return StageStep(weights, stage, shelf, str, lambda _: None, tmp_path / "done", part_bytes=PART)


def at(step, hub):
    """The same step for what the Hub holds now."""
    stage = dataclasses.replace(step.stage, revision=hub.commit)
    return dataclasses.replace(step, stage=stage)


def run(step):
    return run_step(step, Marks(lambda _: "", lambda *_: None, "boot"))


def stored(account, step):
    pages = account.s3.list_objects_v2(Bucket=BUCKET, Prefix=step.weights.prefix)
    return {o["Key"].removeprefix(step.weights.prefix) for o in pages.get("Contents", ())}


def content(account, step, path):
    key = step.weights.prefix + path
    return account.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()


def manifest(account, step):
    key = manifest_key(step.weights.prefix)
    return json.loads(account.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())


def test_a_commit_is_copied_and_the_manifest_lists_it(large, step, account):
    step = at(step, large)
    assert run(step).outcome == "CHANGED"
    assert stored(account, step) == {"config.json", LARGE, "sub/notes.txt"}
    whole = (large.folder / LARGE).read_bytes()
    assert content(account, step, LARGE) == whole
    listed = {f["path"]: f for f in manifest(account, step)["files"]}
    assert listed[LARGE]["sha256"] == hashlib.sha256(whole).hexdigest()
    assert listed[LARGE]["size_bytes"] == len(whole)


def test_the_second_run_asks_nobody(large, step):
    step = at(step, large)
    run(step)
    before = len(large.hub.told()["asked"])
    assert run(step).outcome == "NOCHANGE"
    assert len(large.hub.told()["asked"]) == before


def test_another_node_finds_the_manifest_and_copies_nothing(large, step, tmp_path):
    step = at(step, large)
    run(step)
    before = len(large.hub.told()["asked"])
    again = dataclasses.replace(step, done=tmp_path / "of-another-disk")
    assert run(again).outcome == "CHANGED"
    assert len(large.hub.told()["asked"]) == before


def test_after_a_break_only_what_is_missing_is_copied(large, step, account):
    step = at(step, large)
    large.serve(HubFault("config.json", calls=99, damaged=True))
    assert "config.json: came with" in run(step).detail
    asked = len(large.asked("/cdn/"))
    large.serve()
    assert run(step).outcome == "CHANGED"
    assert len(large.asked("/cdn/")) == asked


def test_a_damaged_file_gets_no_name_and_no_manifest_and_leaves_no_parts(large, step, account):
    step = at(step, large)
    large.serve(HubFault(LARGE, calls=99, damaged=True))
    report = run(step)
    assert report.outcome == "FAILED"
    assert f"{LARGE}: came with" in report.detail
    assert "damaged on the way" in report.detail
    assert LARGE not in stored(account, step)
    uploads = account.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    assert not [u for u in uploads if u["Key"].startswith(step.weights.prefix)]
    with pytest.raises(account.s3.exceptions.NoSuchKey):
        manifest(account, step)


def test_a_repository_without_a_model_is_refused(hub, step):
    (hub.folder / "config.json").unlink()
    hub.serve()
    assert "has no config.json" in run(at(step, hub)).detail


def test_how_far_it_is_lies_in_the_bucket_and_is_told(large, step, account):
    told = []
    run(dataclasses.replace(at(step, large), tell=told.append))
    key = progress_key(step.weights.prefix)
    progress = json.loads(account.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    assert (progress["files_done"], progress["files"]) == (3, 3)
    assert progress["bytes_done"] == progress["bytes"]
    assert told[0].startswith("gateway copies the weights from Hugging Face: 0 of 3 files")
    assert told[-1] == ""


def waiting(step, told, seconds=20.0):
    return Staged(step.bucket, step.stage, told, seconds, poll_seconds=0.02)


def test_others_wait_until_all_is_there_and_get_the_list(large, step):
    step, told, found = at(step, large), [], []
    waits = waiting(step, told.append)
    thread = threading.Thread(target=lambda: found.extend(waits(BUCKET, step.weights.prefix)))
    thread.start()
    while not told:
        time.sleep(0.01)
    assert told[0] == "waiting: gateway has not begun to copy the weights from Hugging Face"
    run(step)
    thread.join(20)
    assert {f.path for f in found} == {"config.json", LARGE, "sub/notes.txt"}
    assert told[-1] == ""


def test_others_are_told_why_it_does_not_come(large, step):
    step = at(step, large)
    large.serve(HubFault("config.json", calls=99, damaged=True))
    run(step)
    with pytest.raises(StepError, match=r"its last fault: config\.json: came with"):
        waiting(step, lambda _: None, 0.0)(BUCKET, step.weights.prefix)


def test_a_manifest_of_another_commit_is_not_waited_out(large, step):
    run(at(step, large))
    other = dataclasses.replace(step, stage=dataclasses.replace(step.stage, revision="f" * 40))
    with pytest.raises(StepError, match="is not whole yet"):
        waiting(other, lambda _: None, 0.0)(BUCKET, other.weights.prefix)


def test_where_vllm_reads_s3_itself_it_starts_once_all_is_there(large, step, tmp_path):
    step = at(step, large)
    waits = AwaitStep(step.weights, waiting(step, lambda _: None, 0.0), tmp_path / "awaited")
    assert run(waits).outcome == "FAILED"
    run(step)
    assert run(waits).outcome == "CHANGED"
    assert run(waits).outcome == "NOCHANGE"
