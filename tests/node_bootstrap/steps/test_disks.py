"""The volume of local disks: whose is used, which is made, which is never touched."""

from __future__ import annotations

import json

import pytest

from node_bootstrap.places import Places
from node_bootstrap.steps import disks
from node_bootstrap.steps.base import StepError, run_step
from node_bootstrap.steps.disks import IMAGE_MOUNT, DisksStep
from tests.node_bootstrap.steps.tools import Tools, marks


def mounted(*targets: str, options: str = "rw") -> str:
    return json.dumps(
        {
            "filesystems": [
                {"target": t, "source": "/dev/vg/lv", "fstype": "ext4", "options": options}
                for t in targets
            ]
        }
    )


def disk(name: str, **changes) -> dict[str, object]:
    model = "Amazon EC2 NVMe Instance Storage"
    return {"name": name, "type": "disk", "size": 3800000000000, "model": model} | changes


def disks_step(tmp_path, mounts: str, *disks: dict[str, object]) -> tuple[DisksStep, Tools]:
    lsblk = json.dumps({"blockdevices": disks})
    tools = Tools({"findmnt": mounts, "lsblk": lsblk, "mkdir": "", "mount": ""})
    return DisksStep(2, Places(tmp_path), tools), tools


def test_the_volume_of_the_image_is_used_and_the_large_folders_go_there(tmp_path):
    step, tools = disks_step(tmp_path, mounted(IMAGE_MOUNT))
    step.apply(1e12)
    bound = [line for line in tools.ran if line.startswith("mount --bind")]
    assert bound == [
        f"mount --bind /opt/dlami/nvme/moe/{n} {tmp_path}/var/lib/moe/{n}"
        for n in ("models", "vllm-cache", "build")
    ]


def test_folders_that_are_there_already_are_no_change(tmp_path):
    state = f"{tmp_path}/var/lib/moe"
    targets = (IMAGE_MOUNT, f"{state}/models", f"{state}/vllm-cache", f"{state}/build")
    step, _ = disks_step(tmp_path, mounted(*targets))
    assert run_step(step, marks()).outcome == "NOCHANGE"


def test_disks_that_carry_data_are_never_formatted(tmp_path):
    step, _ = disks_step(tmp_path, mounted("/"), disk("nvme1n1", fstype="xfs"), disk("nvme2n1"))
    with pytest.raises(StepError, match=r"carry data: nvme1n1 \(xfs\)"):
        step.apply(1e12)


OWN = {"type": "lvm", "name": "moe-data", "fstype": "ext4", "mountpoints": [None]}


def test_the_volume_of_our_own_is_found_again_after_a_reboot(tmp_path, monkeypatch):
    carries = {"fstype": "LVM2_member", "children": [OWN]}
    mine = (disk("nvme1n1", **carries), disk("nvme2n1", **carries))
    step, _ = disks_step(tmp_path, mounted("/"), *mine)
    scripts = []
    monkeypatch.setattr(disks, "install", lambda script, *_: scripts.append(script))
    step.apply(1e12)
    assert scripts[0].values["DISKS"] == "/dev/nvme1n1 /dev/nvme2n1"


def test_a_volume_of_somebody_else_is_never_taken(tmp_path):
    other = {"fstype": "LVM2_member", "children": [OWN | {"name": "vg.01-lv_ephemeral"}]}
    step, _ = disks_step(tmp_path, mounted("/"), disk("nvme1n1", **other), disk("nvme2n1"))
    with pytest.raises(StepError, match=r"carry data: nvme1n1 \(LVM2_member, lvm vg.01-lv_"):
        step.apply(1e12)


def test_a_missing_disk_is_no_reason_for_a_smaller_volume(tmp_path):
    step, _ = disks_step(tmp_path, mounted("/"), disk("nvme1n1"))
    with pytest.raises(StepError, match="1 local disks, the plan counts on 2"):
        step.apply(1e12)


def test_a_volume_that_turned_read_only_is_told_with_what_to_do(tmp_path):
    step, _ = disks_step(tmp_path, mounted(IMAGE_MOUNT, options="ro"))
    assert "Stop and start the instance" in run_step(step, marks()).detail
