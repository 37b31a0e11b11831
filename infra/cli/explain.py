"""`moe explain`: everything that is known of one rule, or of one kind of fault of the settings."""

from __future__ import annotations

import sys

from infra.checks import near_codes, rule_of
from infra.checks.reference import explanation, markdown
from infra.cli.errors import UsageError
from infra.faults import CODES


def run(code: str) -> None:
    """Print the whole rule; UsageError with near codes where there is none."""
    rule = rule_of(code)
    if rule is not None:
        print(explanation(rule))
        return
    wanted = code.upper().replace("-", "_")
    if wanted.startswith("PREFLIGHT_"):
        _preflight(wanted)
        return
    if wanted not in CODES:
        near = near_codes(code)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"No rule has the code {code}.{hint} All are in docs/checks.md.")
    fact, remedy = CODES[wanted]
    print(f"{wanted} (a fault of the settings)\n\n  What:      {fact}\n  Do:        {remedy}")


def _preflight(code: str) -> None:
    """A check of the account: what it is about, and which permissions it takes."""
    from infra.preflight.run import CHECKS  # noqa: PLC0415 - botocore, needed for these codes alone

    found = next((check for check in CHECKS if check.code == code), None)
    if found is None:
        known = ", ".join(check.code for check in CHECKS)
        raise UsageError(f"No check of the account has the code {code}. There are {known}.")
    permissions = ", ".join(found.permissions) or "none"
    print(
        f"{code} (moe preflight)\n\n  Passes if:   {found.about}\n  Setting:     {found.where}\n"
        f"  Permissions: {permissions}\n  More:        docs/preflight.md"
    )


def reference() -> str:
    """The page docs/checks.md."""
    return markdown(CODES)


if __name__ == "__main__":
    sys.stdout.write(reference())
