"""Who runs what where tests run side by side."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

E2E = "tests/e2e/"
MACHINE = "tests/rehearsal/machine/"
"""Whatever boots there has one network."""

# How long an example takes says nothing on a machine that other tests share.
hypothesis.settings.register_profile("beside-others", deadline=None)
hypothesis.settings.load_profile("beside-others")


class BesideTheirStack(LoadScopeScheduling):
    """A file's tests on one worker: they share ports. A folder's too below tests/e2e: a stack."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        if file.startswith(MACHINE) and file.endswith("_e2e.py"):
            return MACHINE
        folder, _, inside = file.removeprefix(E2E).partition("/")
        return folder if file.startswith(E2E) and inside else file


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> BesideTheirStack | None:
    """For `--dist loadscope`; every other mode is xdist's own."""
    if config.getvalue("dist") != "loadscope":
        return None
    return BesideTheirStack(config, log)
