"""One rehearsal for the whole run of the e2e tests: brought up once, taken down with proof."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rehearsed import CHECKOUT, MODEL, PROMPTS, Rehearsed, write_stack

from rehearsal.image import model, vllm
from rehearsal.image.reference import Completion, completion


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rehearsal") / "home"


@pytest.fixture(scope="session")
def stack(root: Path) -> Iterator[Rehearsed]:
    """The stack, up and answering; `down` after the last test, with its own proof."""
    rehearsed = Rehearsed(root, write_stack(root.parent / "stacks"))
    try:
        rehearsed.run("up")
        yield rehearsed
    finally:
        rehearsed.run("down")


@pytest.fixture(scope="session")
def reference() -> dict[str, Completion]:
    """Greedy answers of one plain `vllm serve` process with the same weights."""
    weights = model.ensure(CHECKOUT / "build/models" / MODEL)
    answers = completion(vllm.ensure(), weights, PROMPTS, max_tokens=16)
    return dict(zip(PROMPTS, answers, strict=True))


@pytest.fixture(scope="session")
def drills(request: pytest.FixtureRequest) -> Iterator[list[dict[str, Any]]]:
    """Seconds of every drill; kept in build/drills.json and printed at the end."""
    rows: list[dict[str, Any]] = []
    yield rows
    (CHECKOUT / "build").mkdir(exist_ok=True)
    (CHECKOUT / "build/drills.json").write_text(json.dumps(rows, indent=1) + "\n")
