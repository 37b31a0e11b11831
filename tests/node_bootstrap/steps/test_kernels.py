"""Compiled kernels on their way from one group to the next, with S3 as moto serves it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import shutil
import tarfile
import threading
from types import SimpleNamespace
from typing import cast

import pytest

from node_bootstrap.agent.shelf import BucketShelf
from node_bootstrap.assignment import Assignment, KernelCache
from node_bootstrap.places import Places
from node_bootstrap.status import GroupReport
from node_bootstrap.steps.base import Marks, StepError, run_step
from node_bootstrap.steps.disks import KEPT
from node_bootstrap.steps.kernels import UNASKED_SECONDS, AfterReady, Keeper, KernelsStep, keep

BUCKET = "moe-serving-test-123456789012"
MARKS = Marks(lambda _: "", lambda *_: None, "boot")
FILES = {"deep_gemm/a/kernel.cubin": b"cubin" * 100, "triton/b/launcher.so": b"elf" * 100}


class Node:
    """One node: its cache, its step, and what leaves its kernels."""

    def __init__(self, folder, account, key, most=2**20):
        self.wanted = KernelCache(key, most)
        self.cache = folder / "cache"
        shelf = BucketShelf(BUCKET, account.s3)
        scratch, state = folder / "scratch", folder / "kernels.json"
        self.step = KernelsStep(self.wanted, shelf, self.cache, scratch, state)
        self.keeper = Keeper(shelf, self.cache, scratch, state)
        self.scratch = scratch

    def start(self):
        return run_step(self.step, MARKS)

    def compile(self, files=FILES):
        for path, content in files.items():
            (self.cache / path).parent.mkdir(parents=True, exist_ok=True)
            (self.cache / path).write_bytes(content)

    def held(self):
        files = (p for p in self.cache.rglob("*") if p.is_file())
        return {p.relative_to(self.cache).as_posix(): p.read_bytes() for p in files}


@pytest.fixture
def node(tmp_path, account, request):
    """Makes nodes that share one entry."""
    key = f"caches/{request.node.name}.tar.gz"
    return lambda name="first", **more: Node(tmp_path / name, account, key, **more)


def put(account, node, content, **more):
    account.s3.put_object(Bucket=BUCKET, Key=node.wanted.key, Body=content, **more)


def test_the_first_node_finds_nothing_and_leaves_what_it_compiled(node):
    first = node()
    report = first.start()
    assert (report.outcome, report.detail) == (
        "CHANGED",
        "nobody has left compiled kernels: vLLM compiles them",
    )
    first.compile()
    assert first.keeper.keep(first.wanted) == "0.0 MB of compiled kernels are kept"
    second = node("second")
    assert second.start().detail.startswith("compiled kernels of caches/")
    assert second.held() == FILES


def test_a_second_start_asks_nobody(node):
    first = node()
    first.start()
    assert first.start().outcome == "NOCHANGE"


def test_it_is_kept_once(node, account):
    first, second = node(), node("second")
    first.start()
    second.start()
    first.compile()
    second.compile({"other": b"of the second"})
    first.keeper.keep(first.wanted)
    before = account.s3.head_object(Bucket=BUCKET, Key=first.wanted.key)["ETag"]
    assert second.keeper.keep(second.wanted).endswith("is there already")
    assert second.keeper.keep(second.wanted) == ""
    assert account.s3.head_object(Bucket=BUCKET, Key=first.wanted.key)["ETag"] == before


def test_of_two_that_leave_it_at_once_one_wins(node, account):
    shelf = BucketShelf(BUCKET, account.s3)
    key = node().wanted.key
    assert shelf.save_file(key, io.BytesIO(b"one"), {}, over=False)
    assert not shelf.save_file(key, io.BytesIO(b"two"), {}, over=False)
    assert shelf.load(key) == b"one"


def hostile() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("../outside")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    return buffer.getvalue()


def link() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("link")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    return buffer.getvalue()


BROKEN = {"no archive": b"torn", "outside": hostile(), "a link": link(), "empty": b""}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("signed", [True, False])
def test_a_broken_entry_is_thrown_away_stops_no_start_and_is_replaced(
    node, account, tmp_path, content, signed
):
    first = node()
    sha256 = hashlib.sha256(content).hexdigest() if signed else "0" * 64
    put(account, first, content, Metadata={"sha256": sha256})
    assert first.start().outcome == "CHANGED"
    assert "was broken and thrown away" in first.start().detail
    assert first.held() == {}
    assert not list(first.scratch.iterdir())
    assert not (tmp_path / "first/outside").exists()
    first.compile()
    first.keeper.keep(first.wanted)
    second = node("second")
    second.start()
    assert second.held() == FILES


def test_an_entry_that_is_too_large_is_neither_taken_nor_kept(node, account):
    small = node(most=10)
    put(account, small, b"x" * 11)
    assert "thrown away" in (small.start(), small.start())[1].detail
    other = node("other", most=10)
    other.start()
    other.compile()
    assert other.keeper.keep(other.wanted).endswith("not kept")


def test_what_was_compiled_here_stays(node):
    first = node()
    first.start()
    first.compile()
    first.keeper.keep(first.wanted)
    second = node("second")
    second.compile({"triton/b/launcher.so": b"newer"})
    second.start()
    assert second.held()["triton/b/launcher.so"] == b"newer"
    assert second.held()["deep_gemm/a/kernel.cubin"] == FILES["deep_gemm/a/kernel.cubin"]


def test_a_bucket_that_refuses_stops_no_start_and_no_agent(node, caplog):
    caplog.set_level("INFO")
    first = node()
    shelf = BucketShelf("there-is-no-such-bucket", first.step.shelf.s3)
    step = KernelsStep(first.wanted, shelf, first.cache, first.scratch, first.step.state)
    assert run_step(step, MARKS).outcome == "CHANGED"
    first.compile()
    keep(Keeper(shelf, first.cache, first.scratch, first.step.state), first.wanted)
    assert "could not be kept" in caplog.text


def test_kernels_that_went_with_the_disks_are_fetched_again(node):
    first, second = node(), node("second")
    first.start()
    first.compile()
    first.keeper.keep(first.wanted)
    second.start()
    shutil.rmtree(second.cache)
    second.cache.mkdir()  # a stop and a start: the same folder on disks that are empty
    assert second.start().outcome == "CHANGED"
    assert second.held() == FILES


def test_what_was_found_is_remembered_on_the_disks_of_the_cache(tmp_path):
    places = Places(tmp_path)
    on_disks = [places.state / name for name in KEPT]
    assert places.cache in on_disks
    assert any(places.kernels.is_relative_to(folder) for folder in on_disks)


class Throttled(BucketShelf):
    def known(self, key):
        raise StepError(f"{key}: SlowDown")


def test_a_bucket_that_did_not_answer_is_asked_again(node):
    first, second = node(), node("second")
    first.start()
    first.compile()
    first.keeper.keep(first.wanted)
    shelf = Throttled(BUCKET, first.step.shelf.s3)
    throttled = dataclasses.replace(second.step, shelf=shelf, now=lambda: 1000.0)
    assert "did not answer" in run_step(throttled, MARKS).detail
    later = dataclasses.replace(second.step, now=lambda: 1000.0 + UNASKED_SECONDS)
    assert run_step(later, MARKS).outcome == "CHANGED"
    assert second.held() == FILES


def test_fetched_kernels_belong_to_whom_the_cache_belongs_to(node):
    if os.geteuid() != 0:
        pytest.skip("only root can give files away, as the agent does")
    first, second = node(), node("second")
    first.start()
    first.compile()
    first.keeper.keep(first.wanted)
    second.cache.mkdir(parents=True)
    os.chown(second.cache, 4711, 4712)
    second.start()
    owners = {(p.stat().st_uid, p.stat().st_gid) for p in second.cache.rglob("*")}
    assert owners == {(4711, 4712)}


def test_a_primary_leaves_them_once_its_group_is_ready_and_only_then(node, tmp_path, account):
    places, shelf = Places(tmp_path), BucketShelf(BUCKET, account.s3)
    wanted = node().wanted
    step = KernelsStep(wanted, shelf, places.cache, places.state / "scratch", places.kernels)
    run_step(step, MARKS)
    (places.cache / "deep_gemm").mkdir(parents=True)
    (places.cache / "deep_gemm/kernel.cubin").write_bytes(b"cubin")
    prepared = cast("Assignment", SimpleNamespace(kernel_cache=wanted))
    after = AfterReady(places)
    report = GroupReport("r", 1, "starting", 0.0, ())
    after.look(prepared, report, shelf)
    after.look(prepared, None, shelf)
    assert not threads()
    after.look(prepared, dataclasses.replace(report, phase="ready"), shelf)
    for thread in threads():
        thread.join(10)
    assert shelf.known(wanted.key) is not None


def threads():
    return [t for t in threading.enumerate() if t.name == "kernels"]
