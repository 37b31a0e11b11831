"""The Condition element of a policy. Pure.

An operator that is not known here makes the statement count against the caller: an Allow does
not apply, a Deny does.
"""

from __future__ import annotations

import fnmatch
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Context = Mapping[str, Sequence[str]]
"""Condition keys in lower case -> the request's values."""
Test = Callable[[str, str], bool]


def like(value: str, pattern: str) -> bool:
    """IAM's wildcards: * and ? only. Brackets are ordinary characters, unlike in fnmatch."""
    return fnmatch.fnmatchcase(value, pattern.replace("[", "[[]"))


def _arn_like(value: str, pattern: str) -> bool:
    ours, theirs = value.split(":", 5), pattern.split(":", 5)
    return len(ours) == len(theirs) and all(map(like, ours, theirs))


def _in_network(value: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(value) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _number(compare: Callable[[float, float], bool]) -> Test:
    def test(value: str, wanted: str) -> bool:
        try:
            return compare(float(value), float(wanted))
        except ValueError:
            return False

    return test


def _moment(text: str) -> float:
    if text.replace(".", "", 1).isdigit():
        return float(text)
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _date(compare: Callable[[float, float], bool]) -> Test:
    def test(value: str, wanted: str) -> bool:
        try:
            return compare(_moment(value), _moment(wanted))
        except ValueError:
            return False

    return test


def _equal(a: Any, b: Any) -> bool:
    return a == b


TESTS: Mapping[str, Test] = {
    "StringEquals": _equal,
    "StringEqualsIgnoreCase": lambda v, w: v.lower() == w.lower(),
    "StringLike": like,
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": lambda v, w: v.lower() == w.lower(),
    "IpAddress": _in_network,
    "NumericEquals": _number(_equal),
    "NumericLessThan": _number(lambda v, w: v < w),
    "NumericLessThanEquals": _number(lambda v, w: v <= w),
    "NumericGreaterThan": _number(lambda v, w: v > w),
    "NumericGreaterThanEquals": _number(lambda v, w: v >= w),
    "DateEquals": _date(_equal),
    "DateLessThan": _date(lambda v, w: v < w),
    "DateLessThanEquals": _date(lambda v, w: v <= w),
    "DateGreaterThan": _date(lambda v, w: v > w),
    "DateGreaterThanEquals": _date(lambda v, w: v >= w),
}
NEGATIONS: Mapping[str, str] = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NotIpAddress": "IpAddress",
    "NumericNotEquals": "NumericEquals",
    "DateNotEquals": "DateEquals",
}


def as_list(value: Any) -> list[str]:
    """A policy element that may be one string, number or bool, or a list of them."""
    items = value if isinstance(value, list) else [value]
    return [str(i).lower() if isinstance(i, bool) else str(i) for i in items]


def conditions_hold(condition: Mapping[str, Mapping[str, Any]], context: Context) -> bool | None:
    """Whether a statement's conditions are met; None: an operator is not known.

    Args:
        condition: operator -> key -> value or values; all must hold.
        context: the request's values, keys in lower case.
    """
    verdict: bool | None = True
    for operator, keys in condition.items():
        for key, wanted in keys.items():
            held = _holds(operator, context.get(key.lower()), as_list(wanted))
            if held is False:
                return False
            if held is None:
                verdict = None
    return verdict


def _holds(operator: str, values: Sequence[str] | None, wanted: list[str]) -> bool | None:
    quantifier, _, name = operator.rpartition(":")
    if name == "Null":
        return (values is None) == (wanted[0].lower() == "true")
    if_exists = name.endswith("IfExists")
    name = name.removesuffix("IfExists")
    negated = name in NEGATIONS
    test = TESTS.get(NEGATIONS.get(name, name))
    if test is None or quantifier not in ("", "ForAllValues", "ForAnyValue"):
        return None
    if not values:
        # Absent: met by IfExists, by ForAllValues (vacuously) and by every negated operator.
        return if_exists or quantifier == "ForAllValues" or (negated and not quantifier)
    verdicts = [any(test(v, w) for w in wanted) != negated for v in values]
    return all(verdicts) if quantifier == "ForAllValues" else any(verdicts)
