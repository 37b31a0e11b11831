"""What all facts share: the explicit unknown, and the numbers that tools print with units."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Unknown:
    """A fact that could not be learnt, and why; whoever decides must not take it for health."""

    unknown: str


_NOT_STATED = frozenset({"N/A", "[N/A]", "[NOT SUPPORTED]", "NOT SUPPORTED", "-", ""})


def number(text: str | None) -> int | None:
    """The leading whole number of a text such as `1980 MHz`; None where a tool states none."""
    if text is None or text.strip().upper() in _NOT_STATED:
        return None
    match = re.match(r"-?\d+", text.strip())
    return int(match[0]) if match else None


def stated(text: str | None) -> str | None:
    """The text, None where a tool says that it has nothing to say."""
    return None if text is None or text.strip().upper() in _NOT_STATED else text.strip()


def version(text: str) -> tuple[int, ...]:
    """The leading numbers of a version such as `595.91.07` or `2.4.0amzn1.0`, for comparing."""
    match = re.match(r"\d+(?:\.\d+)*", text.strip())
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def first_line(output: str) -> str:
    """The first line that says something, shortened: for the reason of an Unknown."""
    return next((line.strip()[:120] for line in output.splitlines() if line.strip()), "no output")
