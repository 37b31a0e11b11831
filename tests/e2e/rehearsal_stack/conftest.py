"""The stack that this folder's tests share: down as soon as the last of them is done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rehearsed import Rehearsed, running, write_stack


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    """Two nodes, up and answering; `down` after the last test, with its own proof."""
    folder = tmp_path_factory.mktemp("rehearsal")
    with running(Rehearsed(folder / "home", write_stack(folder / "stacks"))) as rehearsed:
        yield rehearsed
