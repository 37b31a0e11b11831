"""Policy documents evaluated as IAM does: an explicit Deny wins, then an Allow, else no. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rehearsal.account.iam.conditions import Context, as_list, conditions_hold, like

Verdict = Literal["allow", "deny", "silent"]
VARIABLE = re.compile(r"\$\{([^}]+)\}")


@dataclass(frozen=True)
class Caller:
    """Who asks. arn: user or assumed-role session; role_arn: the session's role."""

    arn: str
    account: str
    role_arn: str | None = None
    services: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """One action on one resource. action: `service:Name`, as policies spell it."""

    action: str
    resource: str
    context: Context


def parse(document: str | bytes | Mapping[str, Any]) -> list[dict[str, Any]]:
    """The statements of a policy document."""
    policy = json.loads(document) if isinstance(document, str | bytes) else document
    statements = policy.get("Statement") or []
    return statements if isinstance(statements, list) else [statements]


def evaluate(
    statements: Iterable[Mapping[str, Any]], question: Question, caller: Caller | None = None
) -> Verdict:
    """What these statements say.

    Args:
        statements: of one or more policies.
        question: what is asked.
        caller: for policies with a Principal (buckets, role trust); None for identity policies.
    """
    verdict: Verdict = "silent"
    for statement in statements:
        said = _statement(statement, question, caller)
        if said == "deny":
            return "deny"
        if said == "allow":
            verdict = "allow"
    return verdict


def _statement(statement: Mapping[str, Any], question: Question, caller: Caller | None) -> Verdict:
    allows = statement.get("Effect") == "Allow"
    if not _actions_match(statement, question.action):
        return "silent"
    if not _resources_match(statement, question):
        return "silent"
    if caller is not None and not _principal_matches(statement, caller, allows=allows):
        return "silent"
    held = conditions_hold(
        _substituted(statement.get("Condition") or {}, question), question.context
    )
    if held is None:
        held = not allows
    if not held:
        return "silent"
    return "allow" if allows else "deny"


def _actions_match(statement: Mapping[str, Any], action: str) -> bool:
    name = action.lower()
    if "NotAction" in statement:
        return not any(like(name, a.lower()) for a in as_list(statement["NotAction"]))
    return any(like(name, a.lower()) for a in as_list(statement.get("Action") or []))


def _resources_match(statement: Mapping[str, Any], question: Question) -> bool:
    if "NotResource" in statement:
        return not any(
            like(question.resource, _variables(r, question))
            for r in as_list(statement["NotResource"])
        )
    if "Resource" not in statement:  # trust policies have none
        return True
    return any(
        like(question.resource, _variables(r, question)) for r in as_list(statement["Resource"])
    )


def _variables(pattern: str, question: Question) -> str:
    """Policy variables such as ${aws:username}; an unknown one matches nothing."""

    def value(match: re.Match[str]) -> str:
        name, _, default = match.group(1).partition(",")
        literal = {"*": "*", "?": "?", "$": "$"}.get(name)
        found = question.context.get(name.strip().lower())
        return literal or (found[0] if found else default.strip(" '") or "\0")

    return VARIABLE.sub(value, pattern)


def _substituted(condition: Mapping[str, Any], question: Question) -> dict[str, dict[str, Any]]:
    return {
        operator: {k: [_variables(v, question) for v in as_list(w)] for k, w in keys.items()}
        for operator, keys in condition.items()
    }


def _principal_matches(statement: Mapping[str, Any], caller: Caller, *, allows: bool) -> bool:
    if "NotPrincipal" in statement:
        return not _named(statement["NotPrincipal"], caller, allows=False)
    return "Principal" in statement and _named(statement["Principal"], caller, allows=allows)


def _named(principal: Any, caller: Caller, *, allows: bool) -> bool:
    if principal == "*":
        return True
    if not isinstance(principal, Mapping):
        return False
    if set(as_list(principal.get("Service") or [])) & set(caller.services):
        return True
    names = set(as_list(principal.get("AWS") or []))
    if "*" in names or names & {caller.arn, caller.role_arn}:
        return True
    # The account as principal: a Deny hits everybody in it; an Allow only lets the account's
    # own identity policies decide, so by itself it grants nothing.
    account = {caller.account, f"arn:aws:iam::{caller.account}:root"}
    return not allows and bool(names & account)


def decide(
    identity: Iterable[Mapping[str, Any]],
    resource: Iterable[Mapping[str, Any]],
    question: Question,
    caller: Caller,
) -> bool:
    """Whether a caller of the resource's own account may do it.

    Args:
        identity: statements of the caller's own policies.
        resource: statements of the resource's policy (bucket policy), if it has one.
        question: what is asked.
        caller: who asks.
    """
    own = evaluate(identity, question)
    theirs = evaluate(resource, question, caller)
    return "deny" not in (own, theirs) and "allow" in (own, theirs)
