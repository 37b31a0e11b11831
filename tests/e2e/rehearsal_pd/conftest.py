"""The stack that this folder's tests share: down as soon as the last of them is done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefill_decode import TOOLS, PrefillDecode, write_pd_stack
from rehearsed import running

MEASURED = {
    "transfer": "require",
    "transfer_floors": {"all_reduce": 0.0005, "all_to_all": 0.0005, "nixl_dram": 0.0005},
}
"""GB/s, far below what two nodes on one machine reach: the way is proven, the figure is told."""


@pytest.fixture(scope="package")
def pd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefillDecode]:
    """Prefill and decode apart, behind a gateway."""
    folder = tmp_path_factory.mktemp("pd")
    stacks = write_pd_stack(folder / "stacks", checks=MEASURED, extra_args=TOOLS)
    stack = PrefillDecode(folder / "home", stacks)
    with running(stack):
        yield stack
