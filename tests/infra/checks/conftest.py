"""Examples of rules as data: settings files that are planned, or plain values for one rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra import model, sources
from infra.checks.run import run
from infra.plan.backends import BackendRequest, choose_all2all
from infra.planning import make_plan
from infra.sources import Source

EXAMPLES = Path(__file__).with_name("examples")


def plan_of(settings: dict[str, Any]):
    """The plan of a settings file's content."""
    values = {key: value for key, value in settings.items() if ":" not in key}
    region = settings.get("aws:region")
    judged = sources.load(Source(values, region, EXAMPLES), "dev")
    return make_plan("dev", judged, model.facts(judged.model, EXAMPLES), region)


def frozen(value: Any) -> Any:
    """YAML's lists as tuples, as the facts have them."""
    if isinstance(value, list):
        return tuple(frozen(item) for item in value)
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return value


def findings_of(example: dict[str, Any], rule):
    """What a rule finds in one example."""
    if "settings" in example:
        return [f for f in run(plan_of(example["settings"])) if f.code == rule.code]
    if "backend" in example:
        notes = choose_all2all(BackendRequest(**example["backend"])).notes
        told = tuple((n.code, n.severity, n.message, n.remedy) for n in notes)
        return list(rule.look({"notes": told}, "moe-serving:groups.serve"))
    values = {name: frozen(value) for name, value in example["values"].items()}
    return list(rule.look(values, "moe-serving:groups.serve"))


@pytest.fixture
def found_in():
    """What a rule finds in one example."""
    return findings_of


@pytest.fixture
def plan():
    """A plan of settings given as a mapping."""
    return plan_of


@pytest.fixture
def gpu_settings():
    """Settings of one group on H100 nodes, with changes to the group."""

    def make(**changes: Any) -> dict[str, Any]:
        return {
            "model": {"name": "Qwen/Qwen3-30B-A3B", "source": "hf"},
            "vllm": {"version": "0.33.0"},
            "groups": {"serve": {"instance_type": "p5.48xlarge", **changes}},
        }

    return make
