from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from infra import archive
from infra.sources import PROJECT


@pytest.fixture(scope="module")
def built() -> archive.BuiltArchive:
    return archive.build(say=lambda _: None)


@pytest.fixture
def checkout(built, tmp_path_factory: pytest.TempPathFactory):
    """Another checkout of the same sources; its dependencies are there already."""

    def make() -> Path:
        root = tmp_path_factory.mktemp("checkout")
        shutil.copytree(
            PROJECT / "node_bootstrap", root / "node_bootstrap", copy_function=shutil.copyfile
        )
        shutil.copytree(PROJECT / "requirements", root / "requirements")
        for kept in built.path.parent.glob("dependencies-*"):
            shutil.copytree(kept, root / "build" / "archive" / kept.name)
        return root

    return make


def names(built: archive.BuiltArchive) -> set[str]:
    with zipfile.ZipFile(built.path) as file:
        return set(file.namelist())


def test_another_checkout_and_umask_give_the_same_bytes(checkout, built):
    before = os.umask(0o077)
    try:
        other = archive.build(checkout(), say=lambda _: None)
    finally:
        os.umask(before)
    assert other.path != built.path
    assert other.sha256 == built.sha256


def test_unchanged_sources_are_not_built_again(checkout):
    root, said = checkout(), []
    first = archive.build(root, said.append)
    stamp = first.path.stat().st_mtime_ns
    said.clear()
    assert archive.build(root, said.append) == first
    assert first.path.stat().st_mtime_ns == stamp
    assert said == []


def test_a_changed_source_is_another_archive(checkout, built):
    root = checkout()
    (root / "node_bootstrap" / "status.py").open("a").write("\n# changed\n")
    assert archive.build(root, say=lambda _: None).sha256 != built.sha256


def test_carries_the_node_its_libraries_and_the_plugin_but_no_vllm(built):
    held = names(built)
    assert "site-packages/node_bootstrap/assignment.py" in held
    assert "site-packages/boto3/__init__.py" in held
    assert "site-packages/prometheus_client/__init__.py" in held
    assert "site-packages/node_bootstrap/vllm_cpu_ep/pyproject.toml" in held
    assert not [
        name for name in held if name.startswith(("site-packages/vllm", "site-packages/torch"))
    ]
    assert not [name for name in held if name.endswith(".pyc")]


def test_carries_only_the_apis_that_a_node_calls(built):
    services = {
        name.split("/")[3]
        for name in names(built)
        if name.startswith("site-packages/botocore/data/") and name.count("/") > 3
    }
    assert services == set(archive.BOTOCORE_SERVICES)


def test_its_libraries_work_from_the_archive(built, tmp_path: Path):
    code = (
        "import boto3, prometheus_client, node_bootstrap.assignment as a, sys;"
        "[boto3.client(s, region_name='us-east-1') for s in ('s3', 'ssm', 'sts')];"
        "print(a.__file__, boto3.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(built.path), "-c", code],
        env={"SHIV_INTERPRETER": "1", "SHIV_ROOT": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(place.startswith(str(tmp_path)) for place in done.stdout.split())


def test_is_small(built):
    assert built.path.stat().st_size < 4 * 2**20


def test_a_lock_that_pip_refuses_is_said_in_pips_words(checkout):
    root = checkout()
    shutil.rmtree(root / "build")
    (root / "requirements" / "node.lock").write_text("boto3==1.44.8\n")
    with pytest.raises(archive.ArchiveError, match="require-hashes"):
        archive.build(root, say=lambda _: None)
    assert not list((root / "build" / "archive").iterdir())
