"""What the settings say of the checks themselves."""

from __future__ import annotations

import difflib

from infra.checks.finding import Severity
from infra.checks.rule import Hit, Hits, rule

_KEY = "checks.suppress"


@rule(
    Severity.WARNING,
    _KEY,
    consequence="The finding is shown as before",
    remedy="mend what the rule finds; `moe explain CODE` says how",
    source="docs/checks.md",
    example="`checks: {suppress: [OPEN_TO_THE_WORLD]}`.",
    scope="settings",
    suppressible=False,
)
def suppress_refused(*, suppressed: tuple[str, ...], unsuppressible_codes: frozenset[str]) -> Hits:
    """Rules whose breach corrupts answers, opens the endpoint or buys what can't serve stay on."""
    for code in suppressed:
        if code in unsuppressible_codes:
            yield Hit(f"{code} can't be suppressed")


@rule(
    Severity.WARNING,
    _KEY,
    consequence="Nothing is suppressed by it",
    remedy="a code as `moe check` prints it",
    source="docs/checks.md",
    example="`checks: {suppress: [EPLB_UNEVEN]}`.",
    scope="settings",
)
def suppress_unknown(*, suppressed: tuple[str, ...], known_codes: frozenset[str]) -> Hits:
    """Only a rule's code can be suppressed."""
    for code in suppressed:
        if code not in known_codes:
            near = difflib.get_close_matches(code, sorted(known_codes), n=1)
            yield Hit(
                f"no rule has the code {code}", remedy=f"did you mean {near[0]}?" if near else ""
            )


RULES = (suppress_refused, suppress_unknown)
