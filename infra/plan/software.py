"""What a node must have installed, with exact versions and where each comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from infra.plan.request import Runtime

Place = Literal["host", "image", "venv"]


@dataclass(frozen=True)
class Component:
    """One piece. version: exact, or a floor as `>= 580`. place: on the host or with vLLM."""

    name: str
    version: str
    place: Place
    source: str
    reason: str


@dataclass(frozen=True)
class SoftwarePlan:
    """All of a node. distributions: Python distributions that `python` must have, exactly."""

    runtime: Runtime
    python: str
    image: str | None
    distributions: dict[str, str]
    components: tuple[Component, ...]
