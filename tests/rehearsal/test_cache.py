"""Artifacts are made whole or not at all, once, and anew when what they were made from changes."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from rehearsal import cache


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def write(text: str):
    return lambda folder: (folder / "made").write_text(text) and None


def test_an_artifact_is_built_once():
    first = cache.artifact("thing", {"version": "1"}, write("a"), 1)
    again = cache.artifact("thing", {"version": "1"}, write("b"), 1)
    assert first == again
    assert (again / "made").read_text() == "a"


def test_another_input_gives_another_artifact():
    first = cache.artifact("thing", {"version": "1"}, write("a"), 1)
    other = cache.artifact("thing", {"version": "2"}, write("b"), 1)
    assert first != other


def test_the_split_between_name_and_value_counts():
    assert cache.key_of({"a": "bc"}) != cache.key_of({"ab": "c"})


def test_a_failed_build_is_not_taken_for_an_artifact():
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cache.artifact("thing", {}, fail, 1)
    made = cache.artifact("thing", {}, write("whole"), 1)
    assert not (made / "half").exists()


def test_two_at_once_build_it_once():
    built = []

    def slowly(folder: Path) -> None:
        built.append(folder)
        threading.Event().wait(0.2)

    threads = [
        threading.Thread(target=cache.artifact, args=("thing", {}, slowly, 1)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_what_nobody_used_for_long_goes_when_its_successor_is_built():
    unused = cache.artifact("thing", {"version": "1"}, write("a"), 1)
    used = cache.artifact("thing", {"version": "2"}, write("b"), 1)
    another_kind = cache.artifact("thing-else", {"version": "1"}, write("c"), 1)
    long_ago = time.time() - (cache.KEPT_DAYS + 1) * 24 * 3600
    for folder in (unused, used, another_kind):
        os.utime(folder / ".complete", (long_ago, long_ago))
    cache.artifact("thing", {"version": "2"}, write("b"), 1)
    cache.artifact("thing", {"version": "3"}, write("d"), 1)
    assert [unused.exists(), used.exists(), another_kind.exists()] == [False, True, True]
