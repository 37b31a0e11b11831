"""Installers run for real as far as a machine without GPUs lets them: refusals, repairs, reruns."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from pathlib import Path

import pytest

from node_bootstrap.assignment import Component, Software
from node_bootstrap.runner import CommandError
from node_bootstrap.steps import installers
from node_bootstrap.steps.installer import Installer, install, render


def soon() -> float:
    return time.monotonic() + 60


def shared(call: str) -> subprocess.CompletedProcess[str]:
    """The functions that all installers have, and one call."""
    whole = render(Installer("nccl", {}))
    script = whole[: whole.index("# Another NCCL")] + call + "\n"
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)


def test_a_disk_with_a_file_system_is_refused_before_anything_is_written(tmp_path):
    if not Path("/usr/sbin/mkfs.ext4").exists():
        pytest.skip("e2fsprogs is missing: there is nothing to make a file system with")
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(8 * 2**20)
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", str(disk)], check=True)
    before = disk.read_bytes()
    with pytest.raises(CommandError) as raised:
        install(installers.volume([str(disk)], tmp_path / "mount"), tmp_path, soon())
    assert raised.value.exit_code == 73
    assert f"{disk} carries data: it is not touched" in raised.value.stderr
    assert disk.read_bytes() == before


LVM = """#!/bin/bash
# Programs of LVM and their kind, with one file each for what they made. The one that is called as
# number `kill-at` does its work and ends all that the installer is.
tool=${0##*/} last=${!#} at="$(dirname "$0")/state"
echo "$tool" >>"$at/calls"
case "$tool" in
  blkid)
    if [[ $last == /dev/moe/data ]]; then cat "$at/ext4" 2>/dev/null
    elif [[ -e $at/pv-${last##*/} ]]; then echo LVM2_member; fi ;;
  pvs) cat "$at/pv-${last##*/}" 2>/dev/null || (exit 5) ;;
  vgs) [[ -e $at/vg ]] || (exit 5) ;;
  lvs) [[ -e $at/lv ]] || (exit 5) ;;
  pvcreate) echo >"$at/pv-${last##*/}" ;;
  vgcreate) for disk in "${@:2}"; do echo "  $1" >"$at/pv-${disk##*/}"; done; touch "$at/vg" ;;
  lvcreate) touch "$at/lv" ;;
  vgchange) touch "$at/active" ;;
  mkfs.ext4) echo ext4 >"$at/ext4"; echo made >>"$at/made" ;;
  mount) touch "$at/mounted" ;;
esac
code=$?
if [[ "$(wc -l <"$at/calls")" == "$(cat "$at/kill-at")" ]]; then kill -KILL 0; fi
exit $code
"""
MAKERS = ("pvcreate", "vgcreate", "lvcreate", "mkfs.ext4")
TOOLS = (*MAKERS, "blkid", "pvs", "vgs", "lvs", "vgchange", "mount", "apt-get", "dpkg")


@pytest.fixture
def lvm(tmp_path, monkeypatch):
    """A stand-in's state folder, and what runs the volume's installer until call number N."""
    state = tmp_path / "bin/state"
    state.mkdir(parents=True)
    for tool in TOOLS:
        program = tmp_path / "bin" / tool
        program.write_text(LVM)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")

    def volume(kill_at: int = 0) -> None:
        (state / "calls").unlink(missing_ok=True)
        (state / "kill-at").write_text(str(kill_at))
        script = installers.volume(["/dev/nvme1n1", "/dev/nvme2n1"], tmp_path / "mount")
        install(script, tmp_path, soon())

    return state, volume


def test_a_volume_whose_making_was_killed_anywhere_is_made_by_the_next_run(lvm):
    state, volume = lvm
    kill_at = 0
    while not (state / "mounted").exists():
        kill_at += 1
        for left in state.iterdir():
            left.unlink()
        with pytest.raises(CommandError):
            volume(kill_at)
        if not (state / "mounted").exists():
            volume()
            assert (state / "mounted").exists()
            assert (state / "made").read_text() == "made\n"
            (state / "mounted").unlink()
    assert kill_at > 12


def test_after_a_reboot_the_volume_is_mounted_and_made_of_nothing_anew(lvm):
    state, volume = lvm
    volume()
    (state / "mounted").unlink()
    (state / "active").unlink()
    volume()
    assert (state / "mounted").exists()
    assert (state / "active").exists()
    assert (state / "made").read_text() == "made\n"


def test_a_disk_of_another_volume_group_is_not_touched(lvm):
    state, volume = lvm
    (state / "pv-nvme2n1").write_text("  vg.01\n")
    with pytest.raises(CommandError) as raised:
        volume()
    assert raised.value.exit_code == 73
    assert "/dev/nvme2n1 carries data of the volume group vg.01" in raised.value.stderr
    assert not (state / "pv-nvme1n1").exists()


def test_an_installer_past_its_time_is_ended_with_all_it_started(tmp_path, monkeypatch):
    seconds = f"86{os.getpid()}"
    text = f"sleep {seconds} &\nwait\n"
    monkeypatch.setattr("node_bootstrap.steps.installer._text", lambda _: text)
    began = time.monotonic()
    with pytest.raises(CommandError) as raised:
        install(Installer("slow"), tmp_path, began + 1)
    assert raised.value.exit_code == 124
    assert time.monotonic() - began < 20
    listed = subprocess.check_output(["ps", "-eo", "args"], text=True)
    assert f"sleep {seconds}" not in listed


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    commits = []
    for number in range(2):
        (folder / "setup.py").write_text(f"# {number}\n")
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-qm", f"{number}"], check=True)
        head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True)
        commits.append(head.strip())
    return folder, commits


def test_a_checkout_is_of_the_commit_and_leaves_nothing_of_an_earlier_build(tmp_path, repository):
    source, (old, new) = repository
    target = tmp_path / "work"
    (tmp_path / "work.new").mkdir()  # of a run that was killed
    for commit, text in ((old[:8], "# 0\n"), (new[:8], "# 1\n"), (new[:8], "# 1\n")):
        assert shared(f"checkout {source} {commit} {target}").returncode == 0
        assert (target / "setup.py").read_text() == text
        assert not (target / "built.o").exists()
        (target / "built.o").touch()


def test_a_commit_that_is_not_there_is_told(tmp_path, repository):
    done = shared(f"checkout {repository[0]} {'0' * 40} {tmp_path}/work")
    assert done.returncode == 65
    assert "has no commit 0000" in done.stderr
    assert not (tmp_path / "work").exists()


@pytest.fixture
def site(tmp_path):
    """A server with an installer signed by a key of this test, as AWS serves its own."""
    if shutil.which("gpg") is None:
        pytest.skip("gpg is missing")
    folder, keys = tmp_path / "site", tmp_path / "k"
    (folder / "tree/efa").mkdir(parents=True)
    keys.mkdir(mode=0o700)
    program = folder / "tree/efa/efa_installer.sh"
    program.write_text('#!/bin/sh\nprintf "%s " "$@"\n')
    program.chmod(0o755)
    archive = folder / "aws-efa-installer-1.50.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "tree/efa", "efa")
    gpg = ["gpg", "--homedir", str(keys), "--batch", "--quiet", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-generate-key", "t@example.org", "default", "sign"], check=True)
    subprocess.run([*gpg, "--detach-sign", "-o", f"{archive}.sig", str(archive)], check=True)
    key = subprocess.check_output([*gpg, "--armor", "--export"])
    (folder / "aws-efa-installer.key").write_bytes(key)
    listed = subprocess.check_output([*gpg, "--list-keys", "--with-colons"], text=True)
    print_of = next(x.split(":")[9] for x in listed.splitlines() if x.startswith("fpr"))
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{archive.name}", print_of
    server.shutdown()
    server.server_close()
    subprocess.run(["gpgconf", "--homedir", str(keys), "--kill", "all"], check=False)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def efa(site, tmp_path, monkeypatch, signer: str) -> str:
    monkeypatch.setattr(installers, "EFA_SIGNER", signer)
    part = Component("EFA userspace (installer)", "1.50.0", "venv", site[0])
    script = installers.efa(part, tmp_path / "work", kernel_module=False)
    return install(script, tmp_path / "scripts", soon())


def test_an_installer_signed_by_the_right_key_runs_beside_vllm_without_its_module(
    site, tmp_path, monkeypatch
):
    for _ in range(2):  # the second run goes by what the first one left
        said = efa(site, tmp_path, monkeypatch, site[1])
        assert said.split() == ["--yes", "--skip-limit-conf", "--disable-ngc", "--skip-kmod"]


def test_an_installer_signed_by_another_key_never_runs(site, tmp_path, monkeypatch):
    with pytest.raises(CommandError) as raised:
        efa(site, tmp_path, monkeypatch, installers.EFA_SIGNER)
    assert raised.value.exit_code == 65
    assert "it is not AWS' installer" in raised.value.stderr
    assert not (tmp_path / "work/efa/installer").exists()
    assert not list((tmp_path / "work/efa").glob("*.tar.gz"))


DOCKER = """#!/bin/sh
for last; do :; done
if [ "$1" = build ]; then grep ^COPY "$last/Dockerfile" >"$0.copied"; fi
"""


def built(site, tmp_path, monkeypatch, signer: str) -> Path:
    """What the image's installer had copied into the image; no file where it built none."""
    monkeypatch.setattr(installers, "EFA_SIGNER", signer)
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    parts = (
        Component("vLLM", "0.29.0", "image", "vllm/vllm-openai:v0.29.0"),
        Component("EFA userspace (installer)", "1.50.0", "image", site[0]),
    )
    software = Software("container", "python3", {}, "moe-serving/vllm-openai-efa:v0.29.0", parts)
    install(installers.image(software, tmp_path / "work"), tmp_path / "scripts", soon())
    return docker.with_name("docker.copied")


def test_an_image_is_built_with_the_planned_installer_signed_by_the_right_key(
    site, tmp_path, monkeypatch
):
    copied = built(site, tmp_path, monkeypatch, site[1]).read_text()
    assert copied == "COPY aws-efa-installer-1.50.0.tar.gz /tmp/efa.tar.gz\n"
    assert (tmp_path / "work/image/aws-efa-installer-1.50.0.tar.gz").is_file()


def test_no_image_is_built_with_an_installer_signed_by_another_key(site, tmp_path, monkeypatch):
    with pytest.raises(CommandError) as raised:
        built(site, tmp_path, monkeypatch, installers.EFA_SIGNER)
    assert raised.value.exit_code == 65
    assert "it is not AWS' installer" in raised.value.stderr
    assert not (tmp_path / "bin/docker.copied").exists()
    assert not list((tmp_path / "work/image").glob("*.tar.gz"))


KILLED = """
import sys, time
from pathlib import Path
from node_bootstrap.assignment import WeightFile, Weights
from node_bootstrap.steps.weights import WeightsStep
def read(bucket, key, start):
    yield b"12345"
    if key.endswith("2"):
        Path(sys.argv[1], "began").touch()
        time.sleep(60 if sys.argv[2] == "slow" else 0)
    yield b"67890"
files = tuple(WeightFile(f"file-{n}", 10) for n in range(3))
root = Path(sys.argv[1])
wanted = Weights("b", "p/", str(root / "models/org/m"), files)
step = WeightsStep(wanted, read, root / "ledger.json")
print(step.check().detail)
step.apply(time.monotonic() + 60)
print(step.check().done)
"""


def test_weights_killed_in_the_middle_are_gone_on_with_by_the_next_run(tmp_path):
    program = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)]
    process = subprocess.Popen([*program, "slow"], stdout=subprocess.DEVNULL)
    ledger = tmp_path / "ledger.json"
    deadline = time.monotonic() + 30
    while not (
        (tmp_path / "began").exists() and ledger.exists() and "file-1" in ledger.read_text()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "models/org/m/file-2").exists()
    said = subprocess.check_output([*program, "fast"], text=True)
    assert said.splitlines() == ["1 files (0.00 GB) to fetch, 0 to remove", "True"]
    assert (tmp_path / "models/org/m/file-2").read_bytes() == b"1234567890"
