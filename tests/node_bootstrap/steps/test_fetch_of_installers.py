"""Downloads of installers against a real server that misbehaves, with the real curl and bash."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from node_bootstrap.steps.installer import Installer, render

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; closes after `cut` bytes of an answer, or waits in between."""

    def do_GET(self):
        begin = 0
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            begin = int(found[1])
        self.server.begins.append(begin)
        if begin >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(CONTENT) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        body = CONTENT[begin:]
        self.wfile.write(body[: self.server.cut or len(body)])
        self.wfile.flush()
        if self.server.cut and self.server.hold.is_set():
            time.sleep(5)
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.cut, made.begins, made.hold = 0, [], threading.Event()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def script(call: str) -> str:
    """The shared functions as every installer has them, and one call."""
    whole = render(Installer("nccl", {"CUDA_MAJOR": "13", "PYTHON": "false", "VERSION": "0"}))
    return whole[: whole.index("# Another NCCL")] + call + "\n"


def fetch(server, target: Path, sha256: str = SHA256, **env: str):
    url = f"http://127.0.0.1:{server.server_port}/file"
    return start(f"fetch {url} {sha256} {target}", **env)


def start(call: str, **env: str):
    environment = os.environ | {"FETCH_DELAY_SECONDS": "0"} | env
    command = ["bash", "-c", script(call)]
    return subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def end(process) -> tuple[int, str]:
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


def test_a_download_that_is_cut_again_and_again_goes_on_where_it_ended(server, tmp_path):
    server.cut = 300_000
    code, _ = end(fetch(server, tmp_path / "file"))
    assert code == 0
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.begins == [0, 300_000, 600_000, 900_000]


def test_a_file_of_another_digest_is_refused_and_never_gets_its_name(server, tmp_path):
    code, said = end(fetch(server, tmp_path / "file", "0" * 64))
    assert code == 65
    assert f"has SHA-256 {SHA256}, planned is 000" in said
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_and_right_is_not_fetched_again(server, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    assert end(fetch(server, tmp_path / "file"))[0] == 0
    assert server.begins == []


def test_a_part_of_another_file_is_not_kept_for_good(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"something else" * 10)
    assert end(fetch(server, tmp_path / "file"))[0] == 65  # joined, so the digest is wrong
    assert end(fetch(server, tmp_path / "file"))[0] == 0
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_run_that_was_killed_is_gone_on_with_by_the_next(server, tmp_path):
    server.cut = 500_000
    server.hold.set()
    process = fetch(server, tmp_path / "file")
    part = tmp_path / "file.part"
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size >= 400_000):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    end(process)
    assert not (tmp_path / "file").exists()
    kept = part.stat().st_size
    server.cut = 0
    server.begins.clear()
    assert end(fetch(server, tmp_path / "file"))[0] == 0
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.begins == [kept]


def test_no_network_is_told_with_the_address_and_leaves_nothing(tmp_path):
    code, said = end(start(f"fetch http://127.0.0.1:9/file {SHA256} {tmp_path}/file"))
    assert code == 69
    assert "http://127.0.0.1:9/file can't be fetched: curl ended with 7" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.e2e
def test_a_full_disk_is_told_as_one_and_room_mends_it(server, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    subprocess.run(mount, check=True)
    try:
        code, said = end(fetch(server, disk / "file"))
        assert code == 74
        assert "is the disk full?" in said
        assert not (disk / "file").exists()
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert end(fetch(server, disk / "file"))[0] == 0
        assert (disk / "file").read_bytes() == CONTENT
    finally:
        subprocess.run(["umount", str(disk)], check=True)
