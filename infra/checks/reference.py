"""The reference of all rules: one rule as text for a terminal, all of them as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.checks.registry import ALL_RULES, SUBJECTS
from infra.checks.rule import NAMESPACE, key_of, sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from infra.checks.rule import Rule

_HEAD = """\
# Checks

Every rule that `moe check` and `moe plan` run, before anything is bought. None of them reads an
account. `moe explain CODE` prints one of them. This page is generated:
`python -m infra.cli.explain > docs/checks.md`.

An ERROR stops `up`; a WARNING costs speed, money or certainty; INFO is worth knowing. A finding
that is known and accepted can be silenced by its code:

    moe-serving:checks:
      suppress: [GATHER_BETWEEN_NODES]

Rules marked *always on* can't be: passing over them would corrupt answers, open the endpoint to
everybody, or buy what can't serve.
"""
_FAULTS_HEAD = """\
## Faults of the settings

What keeps settings from being read at all. Every fault of a file is shown in one run, with the
key, what was given and what is allowed; `moe check` ends with exit status 2.

| code | what is wrong | what to do |
| --- | --- | --- |
"""
_SCOPES = {
    "stack": "the stack",
    "group": "each group",
    "pair": "each prefill group with each decode group",
    "settings": "the settings",
    "launch": "each launch request of the program",
}


def markdown(faults: Mapping[str, tuple[str, str]]) -> str:
    """The whole reference.

    Args:
        faults: code of a fault of the settings -> what is wrong, what to do.
    """
    parts = [_HEAD, _index()]
    for subject, rules in SUBJECTS:
        parts.append(f"## {subject}\n")
        parts += [_section(rule) for rule in rules]
    rows = "".join(f"| `{code}` | {fact} | {remedy} |\n" for code, (fact, remedy) in faults.items())
    return "\n".join([*parts, _FAULTS_HEAD + rows])


def explanation(rule: Rule) -> str:
    """All that is known of one rule, for a terminal."""
    lines = [
        f"{rule.code} ({rule.severity}, about {_SCOPES[rule.scope]})",
        "",
        *_fields(
            (
                ("What", rule.fact),
                ("Follows", sentence(rule.consequence)),
                ("Do", sentence(rule.remedy)),
                ("Setting", _setting(rule)),
                ("Example", sentence(rule.example)),
                ("Source", rule.source),
                ("Suppress", _suppression(rule)),
            )
        ),
    ]
    return "\n".join(lines)


def _index() -> str:
    rows = "".join(
        f"| [`{rule.code}`](#{rule.code.lower()}) | {rule.severity} | {rule.fact} |\n"
        for rule in sorted(ALL_RULES, key=lambda rule: rule.code)
    )
    return f"| code | severity | rule |\n| --- | --- | --- |\n{rows}"


def _section(rule: Rule) -> str:
    always = "" if rule.suppressible else ", always on"
    return (
        f"### {rule.code}\n\n"
        f"{rule.severity}{always}, about {_SCOPES[rule.scope]}: `{_setting(rule)}`\n\n"
        f"- **Fact:** {rule.fact}\n"
        f"- **Consequence:** {sentence(rule.consequence)}\n"
        f"- **Remedy:** {sentence(rule.remedy)}\n"
        f"- **Example:** {sentence(rule.example)}\n"
        f"- **Source:** {rule.source}\n"
    )


def _setting(rule: Rule) -> str:
    group = "groups.<group>" if rule.scope in ("group", "pair") else ""
    return key_of(f"{NAMESPACE}{group}", rule.where)


def _suppression(rule: Rule) -> str:
    if rule.suppressible:
        return f"moe-serving:checks: {{suppress: [{rule.code}]}}"
    return "not possible: this would corrupt answers, open the endpoint or buy what can't serve"


def _fields(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f"  {name + ':':<10} {text}" for name, text in pairs]
