"""The catalog's table of releases says what was read from each release's source."""

from __future__ import annotations

import importlib.util
import json
from importlib import resources
from pathlib import Path

import pytest

HERE = Path(__file__).parent
AS_READ = json.loads((HERE / "data" / "vllm_releases_digests.json").read_text())
TABLE = json.loads((resources.files("infra.catalog") / "vllm_releases.json").read_text())
ORDER = {version: index for index, version in enumerate(TABLE["releases"])}

spec = importlib.util.spec_from_file_location("release_digests", HERE / "release_digests.py")
assert spec
assert spec.loader
digests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(digests)


def has(first, last, version):
    return ORDER[first] <= ORDER[version] <= ORDER[last]


def unfolded(table, version):
    """What a table of first, last and value says of one release."""
    return {
        name: span["value"]
        for name, spans in table.items()
        for span in spans
        if has(span["first"], span["last"], version)
    }


def test_every_release_that_was_read_is_in_the_table():
    assert list(ORDER) == list(AS_READ)


@pytest.mark.parametrize("version", AS_READ)
def test_a_release_has_the_flags_variables_and_facts_of_its_source(version):
    env = [
        name
        for name, spans in TABLE["env"].items()
        if any(has(first, last, version) for first, last in spans)
    ]
    flags, facts = unfolded(TABLE["flags"], version), unfolded(TABLE["facts"], version)

    assert digests.of_release(flags, env, facts) == AS_READ[version]


def test_a_changed_default_would_be_noticed():
    flags = unfolded(TABLE["flags"], "0.33.0")
    changed = flags | {"--headless": {**flags["--headless"], "default": True}}

    assert digests.of_release(flags, [], {}) != digests.of_release(changed, [], {})
