"""The form of a rule: one small function of plain values, with what a person must know of it.

A rule's arguments are named for the facts that they take (facts.py), so a rule never sees a plan
and can be tried with plain values. Its docstring is the fact in general words; what it returns is
the fact with the values found.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from infra.checks.finding import Finding, Severity

Scope = Literal["stack", "group", "pair", "settings", "launch"]
"""What a rule looks at: the stack, one group, a prefill group with a decode group, the settings of
the checks, or one launch request of the program."""


@dataclass(frozen=True)
class Hit:
    """What a rule found.

    fact: what is wrong, with the values, a clause without a full stop. where, remedy, consequence:
    more exact than the rule's own; empty to take those.
    """

    fact: str
    where: str = ""
    remedy: str = ""
    consequence: str = ""


Hits = Iterable[Hit]
NAMESPACE = "moe-serving:"
_STACK_KEYS = ("ami", "gateway", "model.", "vllm.")
"""Keys of the stack that rules of a group can be about."""


@dataclass(frozen=True)
class Rule:
    """One rule of the reference.

    where: the settings key that it is about, below the group for a group's rule. suppressible:
    False where passing over it would corrupt answers, open the endpoint or buy what can't serve.
    takes: names of the facts that `judge` wants. example: a case in a sentence or two.
    """

    code: str
    severity: Severity
    scope: Scope
    where: str
    fact: str
    consequence: str
    remedy: str
    source: str
    example: str
    suppressible: bool
    judge: Callable[..., Hits]
    takes: tuple[str, ...]

    def look(self, values: Mapping[str, Any], at: str) -> tuple[Finding, ...]:
        """Findings with the given facts; `at` is put before `where`."""
        hits = self.judge(**{name: values[name] for name in self.takes})
        return tuple(self.finding(hit, at) for hit in hits)

    def finding(self, hit: Hit, at: str) -> Finding:
        """The finding of one hit: fact and consequence as two sentences."""
        consequence = hit.consequence or self.consequence
        return Finding(
            code=self.code,
            severity=self.severity,
            where=key_of(at, hit.where or self.where),
            message=f"{sentence(hit.fact)} {sentence(consequence)}",
            remedy=hit.remedy or self.remedy,
        )


def rule(  # noqa: PLR0913 - each is one field of the reference, given by name
    severity: Severity,
    where: str,
    *,
    consequence: str,
    remedy: str,
    source: str,
    example: str,
    scope: Scope = "group",
    suppressible: bool = True,
) -> Callable[[Callable[..., Hits]], Rule]:
    """Make a rule of a function: its name in capitals is the code, its docstring the fact."""

    def made(judge: Callable[..., Hits]) -> Rule:
        return Rule(
            code=judge.__name__.upper(),
            severity=severity,
            scope=scope,
            where=where,
            fact=inspect.cleandoc(judge.__doc__ or "").replace("\n", " "),
            consequence=consequence,
            remedy=remedy,
            source=source,
            example=example,
            suppressible=suppressible,
            judge=judge,
            takes=tuple(inspect.signature(judge).parameters),
        )

    return made


def key_of(at: str, where: str) -> str:
    """The settings key: below the group, unless it is one of the stack's."""
    if not where:
        return at
    if at == NAMESPACE or where.startswith(_STACK_KEYS):
        return f"{NAMESPACE}{where}"
    return f"{at}.{where}"


def sentence(text: str) -> str:
    """A clause as a sentence: a capital, unless it begins with a name, and a full stop."""
    text = text.strip()
    text = text[:1].upper() + text[1:] if not _is_a_name(text) else text
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _is_a_name(text: str) -> bool:
    """Whether a text begins with a name of vLLM or AWS, which keeps its small letter."""
    first = text.split(" ", 1)[0].rstrip(",:;")
    return "_" in first or "." in first or any(c.isdigit() for c in first) or first == "vLLM"
