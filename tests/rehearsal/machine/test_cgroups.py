"""Where control groups are, on machines of both layouts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rehearsal.machine import cgroups
from rehearsal.machine.interface import MachineError

UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "31 23 0:27 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n"
    "32 31 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    "33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "34 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "35 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
)


def test_a_unified_machine_has_one_hierarchy():
    assert cgroups.hierarchies(UNIFIED).roots == (Path("/sys/fs/cgroup"),)


def test_a_hybrid_machine_has_its_limits_in_version_1():
    layout = cgroups.hierarchies(HYBRID)
    assert layout.unified == Path("/sys/fs/cgroup/unified")
    assert layout.v1 == {
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "memory": Path("/sys/fs/cgroup/memory"),
    }


def test_a_machine_without_cgroup2_is_told_how_to_mount_it():
    with pytest.raises(MachineError, match="mount -t cgroup2"):
        cgroups.hierarchies("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n")


def test_a_folder_that_goes_while_processes_are_listed_is_passed_over(tmp_path, monkeypatch):
    branch = tmp_path / "moe-abcdef" / "i-1"
    for name, pids in (("ending.service", "41\n"), ("kept.service", "42\n43\n")):
        (branch / name / "inner").mkdir(parents=True)
        (branch / name / "cgroup.procs").write_text(pids)
    monkeypatch.setattr(cgroups, "hierarchies", lambda: cgroups.Hierarchies(tmp_path, {}))
    scandir = os.scandir

    def scandir_of_one_that_ends(folder):
        if str(folder).endswith("/ending.service"):
            shutil.rmtree(folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", scandir_of_one_that_ends)
    assert cgroups.processes("abcdef", "i-1") == [42, 43]
