"""Settings files that can't be used: the first line of each says which codes it must raise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[1] / "settings_broken").glob("*.yaml"))
SEVERAL = ("five-errors.yaml", "five-faults.yaml")


def wanted(path: Path) -> list[str]:
    first, _, _ = path.read_text().partition("\n")
    return first.removeprefix("# must raise:").split()


@pytest.fixture
def errors_of(moe):
    """(code, severity, where, message) of each ERROR of a file, and the exit status."""

    def check(path: Path) -> tuple[list[dict[str, str]], int]:
        done = moe("check", "-f", str(path), "--stack", "dev", "--json")
        found = json.loads(done.stdout)
        return [f for f in found if f["severity"] == "ERROR"], done.exit_code

    return check


def test_there_are_forty_broken_files():
    assert len([path for path in FILES if path.name not in SEVERAL]) >= 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_broken_file_raises_its_codes(path, errors_of):
    errors, status = errors_of(path)
    codes = [error["code"] for error in errors]
    assert set(wanted(path)) <= set(codes)
    assert status == (2 if all(code.startswith("SETTINGS_") for code in codes) else 1)


@pytest.mark.parametrize("name", SEVERAL)
def test_a_file_with_five_faults_shows_five(name, errors_of):
    (path,) = (path for path in FILES if path.name == name)
    errors, _ = errors_of(path)
    assert sorted(error["code"] for error in errors) == sorted(wanted(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_fault_says_where_and_what_to_do(path, errors_of):
    errors, _ = errors_of(path)
    for error in errors:
        assert error["where"]
        assert error["message"]
        assert error["remedy"]
