"""The library of symptoms, as data."""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

Stage = Literal["hardware", "host", "software", "network", "weights", "start", "serving"]
STAGES: tuple[Stage, ...] = (
    "hardware",
    "host",
    "software",
    "network",
    "weights",
    "start",
    "serving",
)
"""A node's way: what fails early brings symptoms of what comes later."""


@dataclass(frozen=True)
class StatusTest:
    """A field of what a node reports, and an expression that it matches when something is wrong."""

    field: str
    pattern: str


@dataclass(frozen=True)
class MetricTest:
    """A metric of vLLM and the value above which it is a symptom."""

    name: str
    above: float


@dataclass(frozen=True)
class Symptom:
    """One entry. affected: releases of vLLM; empty for all. explains: ids of its consequences."""

    id: str
    stage: Stage
    symptom: str
    cause: str
    fix: str
    verify: str
    source: str
    affected: str = ""
    log: tuple[str, ...] = ()
    status: StatusTest | None = None
    metric: MetricTest | None = None
    explains: tuple[str, ...] = ()


@functools.cache
def symptoms() -> tuple[Symptom, ...]:
    """All entries, by stage, within a stage as they stand in the file."""
    text = (resources.files("infra.doctor") / "symptoms.toml").read_text()
    found = [_symptom(entry) for entry in tomllib.loads(text)["symptom"]]
    return tuple(sorted(found, key=lambda s: STAGES.index(s.stage)))


def affects(spec: str, version: str) -> bool:
    """Whether a release is among those of a spec such as `>=0.24,<0.29`; unknown ones are."""
    have = _numbers(version)
    if not have:
        return True
    tests = {">=": have.__ge__, "<": have.__lt__, "<=": have.__le__, ">": have.__gt__}
    for part in filter(None, (p.strip() for p in spec.split(","))):
        match = re.fullmatch(r"(>=|<=|<|>)(\d[\d.]*)", part)
        if match is None:
            raise ValueError(f"releases {spec!r} are not of the form `>=0.24,<0.29`")
        if not tests[match[1]](_numbers(match[2])):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(n) for n in match[0].split(".")) if match else ()


def _symptom(entry: dict[str, Any]) -> Symptom:
    """An unknown key is a TypeError: the file is part of the program, and tested."""
    given = dict(entry)
    if "status" in given:
        given["status"] = StatusTest(**given["status"])
    if "metric" in given:
        given["metric"] = MetricTest(**given["metric"])
    for key in ("log", "explains"):
        given[key] = tuple(given.get(key, ()))
    return Symptom(**given)
