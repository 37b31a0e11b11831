"""What would go wrong with a plan: one small rule each, none of which reads an account."""

from infra.checks.finding import Finding, Severity

__all__ = ["Finding", "Severity"]
