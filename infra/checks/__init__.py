"""What would go wrong with a plan: one small rule each, none of which reads an account."""

from infra.checks.finding import Finding, Severity, in_order
from infra.checks.launch_request import judge_launch, launch_facts
from infra.checks.registry import ALL_RULES, near_codes, rule_of
from infra.checks.run import run

__all__ = [
    "ALL_RULES",
    "Finding",
    "Severity",
    "in_order",
    "judge_launch",
    "launch_facts",
    "near_codes",
    "rule_of",
    "run",
]
