from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from infra.checks import ALL_RULES

EXAMPLES = Path(__file__).with_name("examples")


def cases(kind: str):
    for rule in ALL_RULES:
        path = EXAMPLES / f"{rule.code}.yaml"
        held = yaml.safe_load(path.read_text()) if path.exists() else {}
        for index, example in enumerate(held.get(kind, ())):
            yield pytest.param(rule, example, id=f"{rule.code}-{index}")


@pytest.mark.parametrize(("rule", "example"), list(cases("fails")))
def test_rule_finds_its_failing_example(rule, example, found_in):
    (found, *_) = found_in(example, rule)
    assert found.severity == rule.severity
    assert found.message
    assert found.remedy


@pytest.mark.parametrize(("rule", "example"), list(cases("passes")))
def test_rule_is_silent_on_its_passing_example(rule, example, found_in):
    assert found_in(example, rule) == []
