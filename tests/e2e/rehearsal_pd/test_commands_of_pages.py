"""Every command of the documentation for prefill and decode apart runs as it stands there."""

from __future__ import annotations

import pytest
from pages import blocks, run
from prefill_decode import STACK, PrefillDecode

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("block", blocks(STACK))
def test_the_commands_for_prefill_and_decode_run(pd: PrefillDecode, block: str) -> None:
    run(pd, block)
