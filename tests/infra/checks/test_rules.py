"""What holds for every rule: it is registered, runs, is explained, and has examples."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import yaml

from infra.checks import ALL_RULES, facts, rule_of, rules
from infra.checks.rule import Rule
from infra.cli import explain
from infra.faults import CODES

PROJECT = Path(__file__).parents[3]
EXAMPLES = Path(__file__).with_name("examples")
FACTS = {
    "stack": facts.StackFacts,
    "group": facts.GroupFacts,
    "pair": facts.PairFacts,
    "settings": facts.CheckFacts,
    "launch": facts.LaunchFacts,
}
each_rule = pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.code)


def modules():
    return [
        importlib.import_module(f"{rules.__name__}.{found.name}")
        for found in pkgutil.iter_modules(rules.__path__)
    ]


def test_every_rule_that_is_written_is_registered():
    written = {
        value.code
        for module in modules()
        for value in vars(module).values()
        if isinstance(value, Rule)
    }
    written |= {rule.code for module in modules() for rule in module.RULES}
    assert written == {rule.code for rule in ALL_RULES}


def test_codes_are_unique_also_among_faults_of_the_settings():
    codes = [rule.code for rule in ALL_RULES] + list(CODES)
    assert len(codes) == len(set(codes))


@each_rule
def test_rule_takes_facts_that_exist(rule):
    assert rule.takes
    assert set(rule.takes) <= {field.name for field in dataclasses.fields(FACTS[rule.scope])}


@each_rule
def test_rule_says_fact_consequence_remedy_source_and_example(rule):
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+", rule.code)
    assert rule.fact.endswith(".")
    for text in (rule.consequence, rule.remedy, rule.source, rule.example):
        assert len(text) > 8


@each_rule
def test_rule_has_a_failing_and_a_passing_example(rule):
    held = yaml.safe_load((EXAMPLES / f"{rule.code}.yaml").read_text())
    assert held["fails"]
    assert held["passes"]


@each_rule
def test_message_is_the_fact_found_and_what_follows(rule, found_in):
    held = yaml.safe_load((EXAMPLES / f"{rule.code}.yaml").read_text())
    (finding, *_) = found_in(held["fails"][0], rule)
    assert finding.where.startswith("moe-serving:")
    assert finding.message.count(". ") + finding.message.count("? ") >= 1
    assert finding.message.endswith((".", "!", "?"))


def test_there_is_no_example_without_a_rule():
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == {rule.code for rule in ALL_RULES}


def test_every_fact_is_used_by_a_rule():
    used = {(rule.scope, name) for rule in ALL_RULES for name in rule.takes}
    unused = {
        (scope, field.name)
        for scope, kind in FACTS.items()
        for field in dataclasses.fields(kind)
        if (scope, field.name) not in used
    }
    # The stack's notes have no rule yet: they become findings as they are.
    assert unused <= {("stack", "notes")}


def test_every_note_of_the_plan_has_a_rule():
    sources = "\n".join(path.read_text() for path in (PROJECT / "infra" / "plan").glob("*.py"))
    codes = set(re.findall(r'Note\(\s*"([A-Z0-9_]+)"', sources))
    assert codes
    assert {code for code in codes if rule_of(code) is None} == set()


def test_a_note_and_its_rule_are_of_one_severity():
    sources = "\n".join(path.read_text() for path in (PROJECT / "infra" / "plan").glob("*.py"))
    for code, severity in re.findall(r'Note\(\s*"([A-Z0-9_]+)",\s*"([A-Z]+)"', sources):
        rule = rule_of(code)
        assert rule is not None
        assert (code, rule.severity) == (code, severity)


def test_reference_is_current():
    # python -m infra.cli.explain > docs/checks.md
    assert (PROJECT / "docs" / "checks.md").read_text() == explain.reference()


def test_reference_has_every_rule_and_every_fault():
    text = (PROJECT / "docs" / "checks.md").read_text()
    for rule in ALL_RULES:
        assert f"\n### {rule.code}\n" in text
    for code in CODES:
        assert f"| `{code}` |" in text
