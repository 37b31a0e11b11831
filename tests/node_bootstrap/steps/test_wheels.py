"""Wheels that were built once: kept in the bucket under a key that says what they fit."""

from __future__ import annotations

import dataclasses
import io
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from node_bootstrap.agent.store import Store
from node_bootstrap.assignment import Component, Software
from node_bootstrap.places import Places
from node_bootstrap.steps import wheels
from node_bootstrap.steps.base import StepError
from node_bootstrap.steps.installer import Installer

BUCKET = "moe-serving-test-123456789012"
WHEEL = "deep_ep-2.0-py3-none-any.whl"
PARTS = (Component("vLLM", "0.33.0", "venv", "PyPI"), Component("torch", "2.14.0", "venv", "PyPI"))
SOFTWARE = Software("venv", sys.executable, {}, None, PARTS)


def test_another_release_torch_cuda_gpu_or_recipe_is_another_key():
    newer = dataclasses.replace(PARTS[1], version="2.15.0")
    keys = {
        wheels.key("deepep", SOFTWARE, "H200", 13, "script"),
        wheels.key("deepep", SOFTWARE, "H200", 12, "script"),
        wheels.key("deepep", SOFTWARE, "B200", 13, "script"),
        wheels.key("deepep", SOFTWARE, "H200", 13, "another script"),
        wheels.key(
            "deepep", dataclasses.replace(SOFTWARE, components=(newer,)), "H200", 13, "script"
        ),
    }
    assert len(keys) == 5
    assert all(k.startswith("wheels/deepep-vllm") for k in keys)


@dataclasses.dataclass
class Node:
    """A node that builds one library: what it built and what it installed."""

    folder: Path
    store: Store
    monkeypatch: pytest.MonkeyPatch
    content: bytes = b"wheel"
    built: list[str] = dataclasses.field(default_factory=list)
    installed: list[bytes] = dataclasses.field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None

    def bring(self) -> None:
        self.monkeypatch.setattr(wheels, "install", self.build)
        self.monkeypatch.setattr(wheels.runner, "run", self.pip)
        self.wheels.bring(time.monotonic() + 60)

    @property
    def wheels(self) -> wheels.Wheels:
        return wheels.Wheels(
            SOFTWARE,
            "H200",
            13,
            Places(self.folder),
            wheels.Shelf(self.store.load, self.store.save),
            {"DeepEP": Installer("deepep")},
            self.folder / "wheels",
        )

    def build(self, installer, _folder, _deadline):
        self.built.append(installer.name)
        self.meanwhile()
        (self.folder / "wheels").mkdir(parents=True)
        (self.folder / "wheels" / WHEEL).write_bytes(self.content)
        return ""

    def pip(self, command, **_):
        files = [part for part in command if part.endswith(".whl")]
        self.installed += [Path(file).read_bytes() for file in files]
        return ""


@pytest.fixture
def node(tmp_path, account, monkeypatch):
    def make(name: str, content: bytes = b"wheel") -> Node:
        return Node(
            tmp_path / name, Store(BUCKET, name, account.s3, account.ssm), monkeypatch, content
        )

    yield make
    for entry in account.s3.list_objects_v2(Bucket=BUCKET, Prefix="wheels/").get("Contents", ()):
        account.s3.delete_object(Bucket=BUCKET, Key=entry["Key"])


def test_the_first_node_builds_and_the_second_takes_what_is_stored(node):
    first, second = node("first"), node("second", b"never built")
    first.bring()
    second.bring()
    assert (first.built, second.built) == (["deepep"], [])
    assert first.installed == second.installed == [b"wheel"]


def test_of_two_that_build_at_once_both_install_what_was_stored_first(node):
    first, second = node("first", b"first"), node("second", b"second")

    def first_is_quicker():
        first.bring()
        second.monkeypatch.setattr(wheels.runner, "run", second.pip)

    second.meanwhile = first_is_quicker
    second.bring()
    assert (first.built, second.built) == (["deepep"], ["deepep"])
    assert first.installed == second.installed == [b"first"]


def test_wheels_that_were_changed_in_the_bucket_are_refused(node, account):
    first, second = node("first"), node("second")
    first.bring()
    (where,) = first.wheels.keys
    noted = account.s3.head_object(Bucket=BUCKET, Key=where)["Metadata"]
    account.s3.put_object(Bucket=BUCKET, Key=where, Body=tar_of("x.whl"), Metadata=noted)
    with pytest.raises(StepError, match=r"noted was .* Delete it"):
        second.bring()
    assert (second.built, second.installed) == ([], [])


def test_an_image_has_its_wheels_installed_once(node, tmp_path):
    builder = node("builder")
    builder.monkeypatch.setattr(wheels, "install", builder.build)
    builder.monkeypatch.setattr(wheels.runner, "run", builder.pip)
    step = wheels.WheelsStep(builder.wheels, tmp_path / "record")
    assert not step.check().done
    step.apply(time.monotonic() + 60)
    assert step.check().done
    assert builder.wheels.keys[0] in step.check().detail
    assert builder.installed == [b"wheel"]


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
