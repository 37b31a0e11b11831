"""Bad input: a clear error that says what to do, and nothing half-made behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rehearsed import CHECKOUT, Rehearsed, write_stack

pytestmark = pytest.mark.e2e


def edited(folder: Path, edit) -> Path:
    path = write_stack(folder) / "Pulumi.rehearsal.yaml"
    data = yaml.safe_load(path.read_text())
    edit(data["config"])
    path.write_text(yaml.safe_dump(data))
    return folder


FAULTS = {
    "unknown-key": (
        lambda c: c["moe-serving:groups"]["serve"].update(max_modell_len=1),
        ["max_modell_len", "max_model_len"],
    ),
    "unknown-model-folder": (
        lambda c: c["moe-serving:model"].update(source="build/models/nowhere"),
        ["moe-serving:model.source", "build/models/nowhere"],
    ),
    "no-nodes": (
        lambda c: c["moe-serving:groups"]["serve"].update(nodes=0),
        ["moe-serving:groups.serve.nodes", "0"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_stack_file_is_refused_before_anything_is_made(tmp_path, fault: str) -> None:
    edit, words = FAULTS[fault]
    stack = Rehearsed(tmp_path / "home", edited(tmp_path / "stacks", edit))
    try:
        done = stack.run("up", check=False)
        assert done.returncode != 0
        for word in words:
            assert word in done.stdout, done.stdout
        assert "Traceback" not in done.stdout, done.stdout
        assert not stack.instances()
        assert not stack.client("s3").list_buckets()["Buckets"]
    finally:
        stack.run("down", check=False)


def test_two_groups_of_one_name_are_refused(tmp_path) -> None:
    path = write_stack(tmp_path / "stacks") / "Pulumi.rehearsal.yaml"
    lines = path.read_text().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if line.strip() == "serve:")
    depth = len(lines[first]) - len(lines[first].lstrip())
    last = first + 1
    while last < len(lines) and len(lines[last]) - len(lines[last].lstrip()) > depth:
        last += 1
    path.write_text("".join(lines[:last] + lines[first:last] + lines[last:]))
    stack = Rehearsed(tmp_path / "home", path.parent)
    try:
        done = stack.run("up", check=False)
        assert done.returncode != 0
        assert "serve" in done.stdout
        assert "twice" in done.stdout
    finally:
        stack.run("down", check=False)


def test_without_root_it_says_what_to_do(tmp_path) -> None:
    done = subprocess.run(
        [
            *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
            *(sys.executable, "-m", "rehearsal", "up"),
        ],
        cwd=CHECKOUT,
        env={**os.environ, "MOE_REHEARSAL_DIR": str(tmp_path / "home"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "root" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "home").exists()
