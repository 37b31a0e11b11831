"""Errors in the form that a service's clients read. Pure."""

from __future__ import annotations

import json
from xml.sax.saxutils import escape

JSON_SERVICES = frozenset(
    {
        "ssm",
        "secretsmanager",
        "kms",
        "logs",
        "servicequotas",
        "acm",
        "monitoring",
        "dynamodb",
        "sqs",
        "ecs",
        "tagging",
        "events",
    }
)
"""Services whose protocol is JSON, by the name in the signature's scope."""
REQUEST_ID = "00000000-0000-0000-0000-000000000000"


def service_of(authorization: str | None) -> str:
    """The service in a SigV4 Authorization header's credential scope; "s3" where there is none."""
    scope = _scope(authorization)
    return scope[3].lower() if len(scope) > 3 else "s3"


def region_of(authorization: str | None) -> str:
    """The region in the credential scope; "" where there is none."""
    scope = _scope(authorization)
    return scope[2] if len(scope) > 3 else ""


def _scope(authorization: str | None) -> list[str]:
    """Access key id, date, region, service, and the word aws4_request."""
    return (authorization or "").partition("Credential=")[2].partition(",")[0].split("/")


def error_body(service: str, code: str, message: str) -> tuple[str, str]:
    """Content type and body of an error.

    Args:
        service: name in the signature's scope, e.g. "ec2".
        code: the error code that clients branch on.
        message: for a person.
    """
    if service in JSON_SERVICES:
        return "application/x-amz-json-1.1", json.dumps({"__type": code, "message": message})
    inner = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    if service == "s3":
        return "application/xml", f"{head}<Error>{inner}<RequestId>{REQUEST_ID}</RequestId></Error>"
    if service == "ec2":
        body = (
            f"<Response><Errors><Error>{inner}</Error></Errors>"
            f"<RequestID>{REQUEST_ID}</RequestID></Response>"
        )
        return "text/xml", head + body
    body = (
        f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error>"
        f"<RequestId>{REQUEST_ID}</RequestId></ErrorResponse>"
    )
    return "text/xml", head + body
