"""What would go wrong with a plan: one small rule each, none of which reads an account."""

from infra.checks.finding import Finding, Severity, in_order
from infra.checks.registry import ALL_RULES, near_codes, rule_of
from infra.checks.run import run

__all__ = ["ALL_RULES", "Finding", "Severity", "in_order", "near_codes", "rule_of", "run"]
