from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from rehearsal.engine import build
from rehearsal.engine.build import EngineError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def program(folder: Path, name: str, says: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\necho '{says}'\n")
    file.chmod(0o755)
    return file


def test_a_new_enough_pulumi_on_path_is_used_as_it_is(tmp_path):
    file = program(tmp_path / "bin", "pulumi", "v3.250.0")
    program(tmp_path / "bin", "pulumi-language-python", "")
    found = build.find(str(tmp_path / "bin"))
    assert found == build.Engine(file, "3.250.0", built=False)


@pytest.mark.parametrize("says", ["v3.199.9", "v2.300.0", "not a version", ""])
def test_an_old_or_unknown_pulumi_is_passed_over(tmp_path, says):
    program(tmp_path / "bin", "pulumi", says)
    program(tmp_path / "bin", "pulumi-language-python", "")
    assert build.find(str(tmp_path / "bin")) is None


def test_a_later_one_on_path_is_found_behind_an_old_one(tmp_path):
    for folder, version in (("old", "v3.100.0"), ("new", "v3.201.0-alpha.1")):
        program(tmp_path / folder, "pulumi", version)
        program(tmp_path / folder, "pulumi-language-python", "")
    found = build.find(os.pathsep.join(str(tmp_path / name) for name in ("old", "new")))
    assert found is not None
    assert found.pulumi.parent.name == "new"


def test_a_pulumi_without_a_python_language_host_is_passed_over(tmp_path):
    program(tmp_path / "bin", "pulumi", "v3.250.0")
    assert build.find(str(tmp_path / "bin")) is None


def test_our_own_builds_on_path_are_not_taken_for_the_users(cache):
    program(cache / "moe-serving" / "engine-0", "pulumi", "v3.250.0")
    program(cache / "moe-serving" / "engine-0", "pulumi-language-python", "")
    assert build.find(str(cache / "moe-serving" / "engine-0")) is None


def test_without_go_the_error_says_what_to_install(tmp_path, monkeypatch, cache):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError) as problem:
        build.ensure()
    assert "go.dev/dl" in str(problem.value)
    assert "Go 1." in str(problem.value)
    assert not list(cache.rglob(".complete"))


def test_an_old_go_is_an_error_with_its_own_words(tmp_path, monkeypatch):
    script = "#!/bin/sh\necho 'go.mod requires go >= 1.26.6 (running go 1.20)' >&2\nexit 1\n"
    (tmp_path / "go").write_text(script)
    (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(EngineError, match=r"running go 1\.20.*Install Go 1"):
        build.build()


def test_nothing_is_present_before_it_is_built(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.present() is None


def test_the_launcher_says_how_to_set_its_variable(tmp_path):
    done = subprocess.run(
        ["/bin/sh", build.LAUNCHER],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "MOE_REHEARSAL_PYTHON" in done.stderr
    assert "make -s env" in done.stderr
