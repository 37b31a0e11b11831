"""Wheels that were built once: kept in the bucket under a key that says what they fit."""

from __future__ import annotations

import dataclasses
import io
import sys
import tarfile
import time

import pytest

from node_bootstrap.agent.store import Store
from node_bootstrap.assignment import Component, Software
from node_bootstrap.places import Places
from node_bootstrap.steps import wheels
from node_bootstrap.steps.base import StepError
from node_bootstrap.steps.installer import Installer

BUCKET = "moe-serving-test-123456789012"
PARTS = (Component("vLLM", "0.33.0", "venv", "PyPI"), Component("torch", "2.14.0", "venv", "PyPI"))
SOFTWARE = Software("venv", sys.executable, {}, None, PARTS)


def test_another_release_torch_gpu_or_recipe_is_another_key():
    newer = dataclasses.replace(PARTS[1], version="2.15.0")
    keys = {
        wheels.key("deepep", SOFTWARE, "H200", "script"),
        wheels.key("deepep", SOFTWARE, "B200", "script"),
        wheels.key("deepep", SOFTWARE, "H200", "another script"),
        wheels.key("deepep", dataclasses.replace(SOFTWARE, components=(newer,)), "H200", "script"),
    }
    assert len(keys) == 4
    assert all(k.startswith("wheels/deepep-vllm") for k in keys)


def test_the_first_node_builds_and_the_second_takes_what_is_stored(tmp_path, account, monkeypatch):
    store = Store(BUCKET, "n", account.s3, account.ssm)
    folder, built, installed = tmp_path / "wheels", [], []

    def build(installer, _folder, _deadline):
        built.append(installer.name)
        folder.mkdir()
        (folder / "deep_ep-2.0-py3-none-any.whl").write_bytes(b"wheel")
        return ""

    def pip(command, **_):
        installed.append([part for part in command if part.endswith(".whl")])
        return ""

    monkeypatch.setattr(wheels, "install", build)
    monkeypatch.setattr(wheels.runner, "run", pip)
    for _ in range(2):
        wheels.Wheels(
            SOFTWARE,
            "H200",
            Places(tmp_path),
            wheels.Shelf(store.load, store.save),
            {"DeepEP": Installer("deepep")},
            folder,
        ).bring(time.monotonic() + 60)
    assert built == ["deepep"]
    assert installed == [[str(folder / "deep_ep-2.0-py3-none-any.whl")]] * 2


def tar_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../x.whl", "/etc/x.whl", "run.sh"])
def test_stored_wheels_that_are_none_are_refused(tmp_path, name):
    with pytest.raises(StepError, match="hold what is no wheel"):
        wheels.unpack(tar_of(name), tmp_path)


def test_a_stored_file_that_is_no_tar_is_refused(tmp_path):
    with pytest.raises(StepError, match="are broken"):
        wheels.unpack(b"<html>", tmp_path)
