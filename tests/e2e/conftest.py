"""What the e2e tests of a run compare with and leave behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from rehearsed import CHECKOUT, MODEL, PROMPTS

from rehearsal.image import model, vllm
from rehearsal.image.reference import Completion, completion


@pytest.fixture(scope="session")
def reference() -> dict[str, Completion]:
    """Greedy answers of one plain `vllm serve` process with the same weights."""
    weights = model.ensure(CHECKOUT / "build/models" / MODEL)
    answers = completion(vllm.ensure(), weights, PROMPTS, max_tokens=16)
    return dict(zip(PROMPTS, answers, strict=True))


@pytest.fixture(scope="session")
def drills(request: pytest.FixtureRequest) -> Iterator[list[dict[str, Any]]]:
    """Seconds of every drill; the latest of each is kept in build/drills.json."""
    rows: list[dict[str, Any]] = []
    yield rows
    kept = CHECKOUT / "build/drills.json"
    kept.parent.mkdir(exist_ok=True)
    before = json.loads(kept.read_text()) if kept.exists() else []
    latest = {row["drill"]: row for row in (*before, *rows)}
    kept.write_text(json.dumps(list(latest.values()), indent=1) + "\n")
