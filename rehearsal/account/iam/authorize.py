"""Checks the signature and the policies of every request. Replaces moto's own check.

moto evaluates no Condition in identity policies, knows no SSM or EC2 resources, treats every
bucket-policy principal as everybody, and fails with a 500 on unsigned requests. The signature
check is moto's; the decision is ours (`policies`).
"""

# ruff: noqa: SLF001 - moto keeps the request, its key and its session in private attributes alone.

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlparse

from moto.core.authorization import ActionAuthenticatorMixin
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.iam.access_control import (
    AssumedRoleAccessKey,
    IAMRequestBase,
    PermissionResult,
    S3IAMRequest,
)
from moto.iam.models import Policy, iam_backends
from moto.s3.exceptions import BucketAccessDeniedError, S3AccessDeniedError, S3ClientError
from moto.s3.models import FakeBucket, s3_backends
from moto.sts.models import sts_backends
from werkzeug.exceptions import HTTPException

from rehearsal.account.ec2.backend import backend_of
from rehearsal.account.iam.policies import Caller, Question, decide, evaluate, parse
from rehearsal.account.iam.resources import (
    ec2_resources,
    iam_resources,
    passed_roles,
    s3_action,
    ssm_resources,
)
from rehearsal.account.wire import JSON_SERVICES, error_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

S3_ARN = "arn:aws:s3:::"
PASSES = ("ec2:RunInstances", "ec2:AssociateIamInstanceProfile")
"""Actions that hand a role to EC2. Making a launch template asks nothing: its launch does."""
MAY_OBJECT: ContextVar[Callable[[str, str], bool] | None] = ContextVar("MAY_OBJECT", default=None)
"""DeleteObjects names its keys in the body: moto asks the bucket for each of them."""


def install() -> None:
    """Enforce IAM from the first request on, whatever moto's count of unchecked requests."""
    ActionAuthenticatorMixin._authenticate_and_authorize_action = _authorize  # pyright: ignore[reportAttributeAccessIssue]  # the one seam of all services
    FakeBucket.get_permission = _bucket_permission  # pyright: ignore[reportAttributeAccessIssue]  # same signature


def _bucket_permission(_: FakeBucket, action: str, resource: str) -> PermissionResult:
    may = MAY_OBJECT.get()
    if may is not None and action == "s3:DeleteObject":
        return PermissionResult.NEUTRAL if may(action, resource) else PermissionResult.DENIED
    return PermissionResult.NEUTRAL


def _authorize(response: Any, request_class: type[IAMRequestBase], resource: str = "*") -> None:
    """Refuse a request whose signature or permission is missing.

    Args:
        response: moto's response object, which holds the request; it has a signature, the server
            lets none without pass.
        request_class: moto's, for the service's own kind of signature and errors.
        resource: what moto takes for the resource; S3's is right, the others' is not.
    """
    url = urlparse(response.uri)
    signed = request_class(
        account_id=response.current_account,
        method=response.method,
        path=response.raw_path + (f"?{url.query}" if url.query else ""),
        data=response.data,
        body=response.raw_body,
        headers=response.headers,
        action=response._get_action(),
    )
    signed.check_signature()
    caller, statements = _caller(signed, response.current_account)
    may_object = _may_object(response, signed, statements, caller)
    MAY_OBJECT.set(may_object)
    for question in _questions(response, signed, resource):
        if question.action == "sts:GetCallerIdentity":
            continue  # AWS allows it whatever the policies say
        if not _permitted(statements, question, caller, response):
            raise _denied(signed, question, caller, response)


class Refused(HTTPException):
    """A refusal in the form of the service's protocol; moto answers with its description."""

    def __init__(self, service: str, status: int, code: str, message: str) -> None:
        _, body = error_body(service, code, message)
        super().__init__(description=body)
        self.code = status


def _expired(signed: IAMRequestBase) -> Exception:
    message = "The security token included in the request is expired"
    if isinstance(signed, S3IAMRequest):
        return S3ClientError("ExpiredToken", message)
    return Refused(signed._service, 400, "ExpiredTokenException", message)


def _caller(signed: Any, account: str) -> tuple[Caller, list[Mapping[str, Any]]]:
    key = signed._access_key
    statements: list[Mapping[str, Any]] = [
        s for p in key.collect_policies() for s in parse(_document(p))
    ]
    role_arn = None
    if isinstance(key, AssumedRoleAccessKey):
        session = sts_backends[account]["aws"].get_assumed_role_from_access_key(key._access_key_id)
        if session is not None:
            if session.expiration < utcnow():
                raise _expired(signed)
            role_arn = session.role_arn
    return Caller(arn=key.arn, account=account, role_arn=role_arn), statements


def _document(policy: Any) -> str:
    if isinstance(policy, Policy):
        return next(v.document for v in policy.versions if v.is_default)
    return policy if isinstance(policy, str) else policy["policy_document"]


def _questions(response: Any, signed: Any, resource: str) -> Iterable[Question]:
    service, region = signed._service, signed._region
    account = response.current_account
    context = _context(response, signed)
    action = str(signed._action)
    name = action.partition(":")[2]
    flat = {k: v[0] if isinstance(v, list) else str(v) for k, v in dict(response.data).items()}
    if service == "s3":
        yield from _s3_questions(response, resource, context)
        return
    resources = [resource]
    if service == "ec2":
        resources = ec2_resources(name, flat, region, account)
    elif service == "ssm":
        resources = ssm_resources(_json(response.raw_body), region, account)
    elif service == "iam":
        resources = iam_resources(flat, account)
    for arn in resources:
        yield Question(action, arn, {**context, **_resource_tags(service, arn, region, account)})
    if action in PASSES:
        template = _template(flat, region, account)
        passed = {**context, "iam:passedtoservice": ["ec2.amazonaws.com"]}
        for arn in passed_roles(flat, template, lambda p: _roles_of(p, account)):
            yield Question("iam:PassRole", arn, passed)


def _template(flat: Mapping[str, str], region: str, account: str) -> Mapping[str, Any]:
    named = {
        k.partition(".")[2]: v
        for k, v in flat.items()
        if k.startswith("LaunchTemplate.Launch") or k == "LaunchTemplate.Version"
    }
    if not named:
        return {}
    try:
        return backend_of(account, region).template_version(named).data
    except EC2ClientError:
        return {}  # the launch itself is refused for it


def _roles_of(profile: str, account: str) -> list[str]:
    """The ARNs of the roles in an instance profile, by its name or ARN."""
    return [
        role.arn
        for found in iam_backends[account]["aws"].instance_profiles.values()
        if profile in (found.name, found.arn)
        for role in found.roles
    ]


def _s3_questions(
    response: Any, resource: str, context: Mapping[str, list[str]]
) -> Iterable[Question]:
    query = parse_qs(urlparse(response.uri).query, keep_blank_values=True)
    path = resource.removeprefix(S3_ARN)
    if path == "*":
        yield Question("s3:ListAllMyBuckets", "*", context)
        return
    action = s3_action(response.method, list(query), has_key="/" in path)
    if response.method == "POST" and "delete" in query:
        return  # asked for each key, through MAY_OBJECT
    yield Question(action, resource, context)
    source = response.headers.get("x-amz-copy-source")
    if source:
        yield Question("s3:GetObject", S3_ARN + unquote(source).split("?")[0].lstrip("/"), context)


def _may_object(
    response: Any, signed: Any, statements: list[Mapping[str, Any]], caller: Caller
) -> Callable[[str, str], bool]:
    context = _context(response, signed)

    def may(action: str, arn: str) -> bool:
        return _permitted(statements, Question(action, arn, context), caller, response)

    return may


def _permitted(
    statements: list[Mapping[str, Any]], question: Question, caller: Caller, response: Any
) -> bool:
    if question.action == "sts:AssumeRole":
        return _may_assume(statements, question, caller)
    return decide(statements, _bucket_policy(question, response), question, caller)


def _bucket_policy(question: Question, response: Any) -> list[dict[str, Any]]:
    if not question.resource.startswith(S3_ARN):
        return []
    name = question.resource.removeprefix(S3_ARN).split("/")[0]
    buckets = s3_backends[response.current_account]["aws"].buckets
    policy = buckets[name].policy if name in buckets else None
    return parse(policy) if policy else []


def _may_assume(statements: list[Mapping[str, Any]], question: Question, caller: Caller) -> bool:
    roles = iam_backends[caller.account]["aws"].roles.values()
    role = next((r for r in roles if r.arn == question.resource), None)
    if role is None:
        return False
    trust = parse(role.assume_role_policy_document)
    trusted = evaluate(trust, question, caller)
    own = evaluate(statements, question)
    # A trust policy that names the account leaves the choice to its identity policies.
    delegated = evaluate(
        trust, question, Caller(f"arn:aws:iam::{caller.account}:root", caller.account)
    )
    if "deny" in (trusted, own):
        return False
    return trusted == "allow" or (delegated == "allow" and own == "allow")


def _context(response: Any, signed: Any) -> dict[str, list[str]]:
    """The condition keys that requests are judged by."""
    key = signed._access_key
    now = utcnow()
    query = parse_qs(urlparse(response.uri).query, keep_blank_values=True)
    context: dict[str, list[str]] = {
        # The rehearsal has no TLS: it never leaves this machine's loopback or a VPC's own
        # namespace. Were it "false", a bucket that demands TLS (every bucket of ours does) would
        # lock everybody out, and the policy could not be rehearsed at all.
        "aws:securetransport": ["true"],
        "aws:principalarn": [getattr(key, "arn", "")],
        "aws:principalaccount": [response.current_account],
        "aws:resourceaccount": [response.current_account],
        "aws:requestedregion": [signed._region],
        "aws:currenttime": [now.strftime("%Y-%m-%dT%H:%M:%SZ")],
        "aws:epochtime": [str(int(now.timestamp()))],
        "aws:sourceip": [response.normalized_request.remote_addr or "127.0.0.1"],
        **{f"s3:{p}": query[p] for p in ("prefix", "delimiter", "max-keys") if p in query},
    }
    for header in ("x-amz-acl", "x-amz-server-side-encryption", "x-amz-storage-class"):
        if header in response.headers:
            context[f"s3:{header}"] = [response.headers[header]]
    if isinstance(key, AssumedRoleAccessKey):
        context["aws:principaltype"] = ["AssumedRole"]
        session = key._session_name
        context["aws:userid"] = [f"AROA:{session}"]
        if session.startswith("i-"):
            region, account = context["aws:requestedregion"][0], response.current_account
            context["ec2:sourceinstancearn"] = [
                f"arn:aws:ec2:{region}:{account}:instance/{session}"
            ]
    else:
        context["aws:principaltype"] = ["User"]
        context["aws:username"] = [context["aws:principalarn"][0].rpartition("/")[2]]
    return context


def _resource_tags(service: str, arn: str, region: str, account: str) -> dict[str, list[str]]:
    if service != "ec2" or "/" not in arn:
        return {}
    tags = backend_of(account, region).tags.get(arn.rpartition("/")[2], {})
    return {
        f"{prefix}:resourcetag/{key.lower()}": [value]
        for key, value in tags.items()
        for prefix in ("aws", "ec2")
    }


def _denied(signed: Any, question: Question, caller: Caller, response: Any) -> Exception:
    sentence = (
        f"User: {caller.arn} is not authorized to perform: {question.action} "
        f"on resource: {question.resource}"
    )
    if isinstance(signed, S3IAMRequest):
        bucket = response.data.get("BucketName")
        return BucketAccessDeniedError(bucket=bucket) if bucket else S3AccessDeniedError()
    service = signed._service
    if service in JSON_SERVICES:
        return Refused(service, 400, "AccessDeniedException", sentence)
    if service == "ec2":
        return Refused(
            service,
            403,
            "UnauthorizedOperation",
            f"You are not authorized to perform this operation. {sentence}",
        )
    return Refused(service, 403, "AccessDenied", sentence)


def _json(body: Any) -> dict[str, Any]:
    try:
        parsed = json.loads(body or b"{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
