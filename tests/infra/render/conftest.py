from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from infra import sources
from infra.planning import make_plan
from tests.infra.examples import facts_of

if TYPE_CHECKING:
    from infra.plan.plan import Plan


@pytest.fixture
def plan_of():
    """Plans an example stack; further arguments change the settings of its group `serve`."""

    def make(stack: str, **changes) -> Plan:
        source = sources.read_file(sources.stack_file(stack), sources.PROJECT)
        settings = sources.load(source, stack)
        if changes:
            group = settings.groups["serve"].model_copy(update=changes)
            settings = settings.model_copy(update={"groups": {"serve": group}})
        return make_plan(stack, settings, facts_of(settings), source.region)

    return make
