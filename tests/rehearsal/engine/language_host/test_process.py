"""The language host as a process: its port, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import language_pb2_grpc

HOST = [sys.executable, "-P", "-m", "rehearsal.engine.language_host", "--executor", "/none"]


def host_of(engine: int) -> list[str]:
    return [*HOST, "--engine-process", str(engine)]


@pytest.fixture
def process():
    started = subprocess.Popen(
        [*host_of(os.getpid()), "127.0.0.1:1"], stdout=subprocess.PIPE, text=True
    )
    yield started
    started.kill()
    started.wait()


def test_it_says_its_port_and_serves_there(process):
    port = int(process.stdout.readline())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = language_pb2_grpc.LanguageRuntimeStub(channel).GetPluginInfo(empty_pb2.Empty())
    assert answer.version == _pinned_version()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once(process, number):
    process.stdout.readline()
    process.send_signal(number)
    assert process.wait(10) == 0  # 0.3 s, and what a busy machine adds


@pytest.mark.timeout(30)
def test_it_ends_when_its_engine_was_killed():
    command = [*HOST, "--engine-process"]
    script = (
        "import os, subprocess, time\n"
        f"subprocess.Popen([*{command!r}, str(os.getpid())])\n"
        "time.sleep(60)\n"
    )
    engine = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    engine.stdout.readline()
    os.kill(engine.pid, signal.SIGKILL)
    engine.wait()
    assert engine.stdout.read() == ""  # the pipe's end: the host, its last holder, is gone


@pytest.mark.timeout(30)
def test_it_ends_when_its_engine_was_gone_before_it_served():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert subprocess.run(host_of(gone.pid), capture_output=True, check=False).returncode == 0


def _pinned_version() -> str:
    text = (Path(__file__).parents[4] / "rehearsal/engine/go/go.mod").read_text()
    (line,) = [line for line in text.splitlines() if "pulumi/pulumi/pkg/v3 v" in line]
    return line.split()[1].lstrip("v")
