"""All rules, in the order of the reference."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from infra.checks.rules import (
    all2all_choice,
    ec2,
    endpoint,
    experts,
    kernels,
    kv_transfer,
    launch,
    memory,
    model,
    network,
    pairs,
    plan_notes,
    requests,
    suppression,
)

if TYPE_CHECKING:
    from infra.checks.rule import Rule

SUBJECTS: tuple[tuple[str, tuple[Rule, ...]], ...] = (
    ("The model", model.RULES),
    ("Memory", memory.RULES),
    ("All2all backends: the choice", all2all_choice.RULES),
    ("All2all backends: limits and roles", kernels.RULES),
    ("Experts", experts.RULES),
    ("KV transfer", kv_transfer.RULES),
    ("Prefill with decode", pairs.RULES),
    ("Commands", launch.RULES),
    ("Choices of the plan", plan_notes.RULES),
    ("EC2: capacity and placement", ec2.RULES),
    ("EC2: network interfaces", network.RULES),
    ("EC2: launch requests", requests.RULES),
    ("Endpoint, router and images", endpoint.RULES),
    ("The checks themselves", suppression.RULES),
)
"""Subjects of the reference and their rules."""

ALL_RULES: tuple[Rule, ...] = tuple(rule for _, rules in SUBJECTS for rule in rules)


def rule_of(code: str) -> Rule | None:
    """The rule with a code, in any case; None if there is none."""
    wanted = code.upper().replace("-", "_")
    return next((rule for rule in ALL_RULES if rule.code == wanted), None)


def near_codes(code: str) -> list[str]:
    """Codes that come near."""
    return difflib.get_close_matches(code.upper(), [rule.code for rule in ALL_RULES], n=4)
