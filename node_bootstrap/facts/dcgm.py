"""`dcgmi diag -j`: NVIDIA's own diagnosis of the GPUs and of the software under them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("dcgmi", "diag", "-r", "1", "-j")
_KEYS = ("DCGM GPU Diagnostic", "DCGM Diagnostic")
"""The document's one key: the first until DCGM 3, the second since 4."""


@dataclass(frozen=True)
class Failure:
    """A test that did not pass. gpu: None where it is of the whole node."""

    test: str
    gpu: int | None
    result: str
    warning: str


@dataclass(frozen=True)
class Diagnosis:
    """version: DCGM's. passed: how many results were Pass; skipped ones are not counted."""

    version: str
    passed: int
    failures: tuple[Failure, ...]


def parse(output: str) -> Diagnosis | Unknown:
    """The document of `-j`; anything before its first brace is passed over."""
    try:
        document = json.loads(output[max(0, output.find("{")) :])
    except ValueError:
        return Unknown(f"dcgmi diag wrote no JSON: {first_line(output)}")
    body: dict[str, Any] = next((document[k] for k in _KEYS if k in document), {})
    if not body.get("test_categories"):
        said = body.get("runtime_error") or first_line(output)
        return Unknown(f"dcgmi diag has no tests: {said}")
    results = list(_results(body["test_categories"]))
    if not results:
        return Unknown("dcgmi diag has tests but no results")
    failures = tuple(r for r in results if r.result.lower() in ("fail", "warn"))
    passed = sum(r.result.lower() == "pass" for r in results)
    return Diagnosis(str(body.get("version", "")), passed, failures)


def _results(categories: list[dict[str, Any]]) -> Iterator[Failure]:
    for category in categories:
        for test in category.get("tests", []):
            for result in test.get("results", []):
                yield Failure(
                    test.get("name", ""),
                    _gpu(result),
                    str(result.get("status", "")),
                    _warning(result.get("warnings")),
                )


def _gpu(result: dict[str, Any]) -> int | None:
    """`gpu_id` until DCGM 3, entity group and id since 4."""
    if "entity_id" in result:
        return int(result["entity_id"]) if result.get("entity_group") == "GPU" else None
    ids = result.get("gpu_ids", result.get("gpu_id"))
    return int(ids) if ids is not None and str(ids).isdigit() else None


def _warning(warnings: Any) -> str:
    if isinstance(warnings, list) and warnings:
        first = warnings[0]
        return str(first.get("warning", "") if isinstance(first, dict) else first)[:200]
    return str(warnings or "")[:200]
