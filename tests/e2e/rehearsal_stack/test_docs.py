"""Every command of the README and of docs/ runs as it stands there."""

from __future__ import annotations

import pytest
from pages import blocks, run
from rehearsed import Rehearsed

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("block", blocks())
def test_the_commands_of_the_documentation_run(stack: Rehearsed, block: str) -> None:
    run(stack, block)
