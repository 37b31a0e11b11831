"""SimulatePrincipalPolicy, which moto lacks, through the evaluator that judges the requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import moto.iam.urls
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.iam.exceptions import NotFoundException
from moto.iam.models import Policy, iam_backends
from moto.iam.responses import IamResponse

from rehearsal.account.iam.policies import Question, evaluate, parse

DECISIONS = {"allow": "allowed", "deny": "explicitDeny", "silent": "implicitDeny"}


def missing_context(
    statements: Iterable[Mapping[str, Any]], context: Mapping[str, Any]
) -> list[str]:
    """Condition keys of these statements that the simulation was given no value for. Pure."""
    asked = {
        key
        for statement in statements
        for keys in (statement.get("Condition") or {}).values()
        for key in keys
    }
    return sorted(k for k in asked if k.lower() not in context)


def results(
    statements: list[dict[str, Any]],
    actions: Iterable[str],
    resources: Iterable[str],
    context: Mapping[str, list[str]],
) -> list[dict[str, Any]]:
    """IAM's answer for every action on every resource. Pure."""
    found: list[dict[str, Any]] = []
    for action in actions:
        for resource in resources:
            matching = [
                s
                for s in statements
                if evaluate([{**s, "Condition": {}}], Question(action, resource, context))
                != "silent"
            ]
            found.append(
                {
                    "EvalActionName": action,
                    "EvalResourceName": resource,
                    "EvalDecision": DECISIONS[
                        evaluate(statements, Question(action, resource, context))
                    ],
                    "MatchedStatements": [],
                    "MissingContextValues": missing_context(matching, context),
                }
            )
    return found


class IamApi(IamResponse):
    """moto's IAM with the simulation."""

    def simulate_principal_policy(self) -> ActionResult:
        """What the policies of a user or role say; resource policies are not looked at."""
        arn = self._get_param("PolicySourceArn")
        now = utcnow()
        context = {
            "aws:currenttime": [now.strftime("%Y-%m-%dT%H:%M:%SZ")],
            "aws:epochtime": [str(int(now.timestamp()))],
            "aws:principalarn": [arn],
        }
        for entry in self._get_param("ContextEntries", []):
            context[entry["ContextKeyName"].lower()] = entry.get("ContextKeyValues") or []
        return ActionResult(
            {
                "IsTruncated": False,
                "EvaluationResults": results(
                    statements_of(self.current_account, arn),
                    self._get_param("ActionNames", []),
                    self._get_param("ResourceArns", []) or ["*"],
                    context,
                ),
            }
        )


def statements_of(account: str, arn: str) -> list[dict[str, Any]]:
    """The statements of all policies that a user or role has."""
    iam = iam_backends[account]["aws"]
    holders = [*iam.users.values(), *iam.roles.values()]
    holder: Any = next((h for h in holders if h.arn == arn), None)
    if holder is None:
        raise NotFoundException(f"The principal {arn} does not exist.")
    documents = list(holder.policies.values())
    documents += [_default_version(p) for p in holder.managed_policies.values()]
    if hasattr(holder, "groups"):
        documents += [d for g in holder.groups for d in g.policies.values()]
        documents += [
            _default_version(p) for g in holder.groups for p in g.managed_policies.values()
        ]
    return [statement for document in documents for statement in parse(document)]


def _default_version(policy: Policy) -> str:
    return next(v.document for v in policy.versions if v.is_default)


def install() -> None:
    """Make moto serve IAM through this. Call before the first request."""
    moto.iam.urls.url_paths["{0}/$"] = IamApi.dispatch
