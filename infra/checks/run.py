"""Runs every rule over a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra.checks.finding import Finding, Severity, in_order
from infra.checks.from_plan import Facts, check_facts, facts_of
from infra.checks.registry import ALL_RULES
from infra.checks.rule import NAMESPACE, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from infra.plan.plan import Plan


def run(plan: Plan, suppress: Iterable[str] = frozenset()) -> tuple[Finding, ...]:
    """What would go wrong with a plan: the worst first, the same plan gives the same findings.

    Args:
        plan: the plan.
        suppress: codes to leave out, beside those of `checks.suppress`. A rule that can't be
            suppressed is not, and the attempt is a finding.
    """
    suppressed = frozenset(suppress) | frozenset(plan.suppress)
    return judge(facts_of(plan), suppressed)


def judge(facts: Facts, suppressed: frozenset[str] = frozenset()) -> tuple[Finding, ...]:
    """The findings of all rules with given facts."""
    own = check_facts(
        suppressed,
        (rule.code for rule in ALL_RULES),
        (rule.code for rule in ALL_RULES if not rule.suppressible),
    )
    found = [
        finding
        for rule in ALL_RULES
        if rule.code not in suppressed or not rule.suppressible
        for at, values in _places(rule, facts, own)
        for finding in rule.look(values, at)
    ]
    return in_order((*found, *_without_rule(facts, suppressed)))


def _without_rule(facts: Facts, suppressed: frozenset[str]) -> Iterable[Finding]:
    """Notes of the plan that no rule stands for: none may get lost."""
    codes = {rule.code for rule in ALL_RULES} | suppressed
    places = [("", facts.stack), *((f"groups.{name}", values) for name, values in facts.groups)]
    for where, values in places:
        for code, severity, message, remedy in values["notes"]:
            if code not in codes:
                yield Finding(code, Severity(severity), f"{NAMESPACE}{where}", message, remedy)


def _places(
    rule: Rule, facts: Facts, own: Mapping[str, Any]
) -> Iterable[tuple[str, Mapping[str, Any]]]:
    if rule.scope == "stack":
        return [(NAMESPACE, facts.stack)]
    if rule.scope == "settings":
        return [(NAMESPACE, own)]
    if rule.scope == "launch":  # the program's own requests: judge_launch
        return []
    named = facts.pairs if rule.scope == "pair" else facts.groups
    return [(f"{NAMESPACE}groups.{name}", values) for name, values in named]
