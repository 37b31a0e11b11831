"""User data of every example stack, judged by the cloud-init that a node of the image has."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from infra import sources
from node_bootstrap.user_data import LIMIT_BYTES
from rehearsal.image import model, rootfs

NODES = {
    "single-node": "serve-0-0",
    "wide-ep": "serve-0-1",
    "pd": "decode-1-0",
    "p6-b200": "serve-0-0",
    "p6-b300": "decode-0-0",
    "cpu-smoke": "serve-0-0",
    "rehearsal": "serve-0-1",
}
MOE = "import sys; from infra.cli import main; sys.argv = ['moe', *sys.argv[1:]]; main()"


def user_data(stack: str) -> bytes:
    if stack in ("cpu-smoke", "rehearsal"):
        model.ensure(sources.PROJECT / "build/models/tiny-qwen3-moe")
    command = [sys.executable, "-c", MOE, "plan", "--stack", stack, "--user-data", NODES[stack]]
    return subprocess.run(command, cwd=sources.PROJECT, check=True, capture_output=True).stdout


def schema(content: bytes, folder) -> subprocess.CompletedProcess[str]:
    """`cloud-init schema` in the image's own file system, which stays as it is."""
    (folder / "user-data").write_bytes(content)
    root = rootfs.ensure()
    script = 'mount --bind "$1" "$2/mnt" && exec chroot "$2" cloud-init schema -c /mnt/user-data'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(folder), str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)


@pytest.mark.e2e
@pytest.mark.parametrize("stack", NODES)
def test_cloud_init_takes_the_user_data_of_an_example(stack: str, tmp_path):
    content = user_data(stack)
    assert len(content) <= LIMIT_BYTES
    judged = schema(content, tmp_path)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert "Valid schema" in judged.stdout


@pytest.mark.e2e
def test_cloud_init_would_have_refused_a_key_of_another_type(tmp_path):
    judged = schema(b"#cloud-config\nwrite_files: nothing\n", tmp_path)
    assert judged.returncode != 0
    assert "write_files" in judged.stdout + judged.stderr


@pytest.mark.e2e
def test_it_is_the_cloud_init_that_the_nodes_run():
    root = rootfs.ensure()
    said = subprocess.check_output(["chroot", str(root), "cloud-init", "--version"], text=True)
    assert " 25.1" in said
