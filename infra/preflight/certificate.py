"""The certificate of a load balancer: there, issued, for the right name, and not about to end."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from infra.preflight.aws import Aws, code_of
from infra.preflight.check import Check
from infra.preflight.result import Verdict, failed, passed, warned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from infra.preflight.asked import Asked

SOON = dt.timedelta(days=30)
"""ACM renews 60 days before the end: one that is this near to it was not renewed."""
_ANOTHER = "set endpoint.certificate_arn to one of this account and region that is ISSUED"
_REMEDIES = {
    "PENDING_VALIDATION": "make the DNS record, or answer the mail, that ACM asks for, and wait",
    "VALIDATION_TIMED_OUT": "request it again, and make ACM's DNS record within 72 h",
}
"""By state; every other state needs another certificate."""


def _certificate(aws: Aws, asked: Asked) -> Iterator[Verdict]:
    arn = str(asked.certificate_arn)
    place = _elsewhere(arn, aws)
    if place:
        yield failed(f"{arn} is in {place}, and a load balancer takes none from there", _ANOTHER)
        return
    try:
        found = aws.acm.describe_certificate(CertificateArn=arn)["Certificate"]
    except ClientError as error:
        if code_of(error) != "ResourceNotFoundException":
            raise
        yield failed(f"ACM in {aws.region} has no certificate {arn}", _ANOTHER)
        return
    yield judge_certificate(found, asked.domain, dt.datetime.now(dt.UTC))


def _elsewhere(arn: str, aws: Aws) -> str:
    """The region and account of an ARN where they are not the stack's; empty where they are."""
    region, account = arn.split(":")[3:5]
    wrong = [] if region == aws.region else [region]
    wrong += [] if account == aws.account else [f"account {account}"]
    return " of ".join(wrong)


def judge_certificate(found: Mapping[str, Any], domain: str | None, now: dt.datetime) -> Verdict:
    """Whether a load balancer takes a certificate, and clients take the load balancer.

    Args:
        found: DescribeCertificate's answer.
        domain: the name that clients use; None: the load balancer's own.
        now: the present.
    """
    arn, status = found["CertificateArn"], found["Status"]
    names = found.get("SubjectAlternativeNames") or [found.get("DomainName", "")]
    what = f"{arn} for {', '.join(names)}"
    if status != "ISSUED":
        reason = f" ({found['FailureReason']})" if found.get("FailureReason") else ""
        return failed(f"{what} is {status}{reason}", _REMEDIES.get(status, _ANOTHER))
    end = found["NotAfter"]
    until = f"{end:%Y-%m-%d %H:%M} UTC"
    if end <= now:
        return failed(f"{what} expired at {until}: clients refuse it", _renewal(found))
    if domain is not None and not covers(names, domain):
        return failed(
            f"{what} does not hold for endpoint.domain {domain}: clients refuse it",
            "take a certificate for that name, or the name of the certificate",
        )
    if end - now < SOON:
        left = (end - now).days
        return warned(f"{what} expires in {left} days, at {until}", _renewal(found))
    if domain is None:
        return warned(
            f"{what} is issued; without endpoint.domain the output names the load balancer itself, "
            "for which no certificate holds",
            f"set endpoint.domain to {names[0]}, and point it at the output endpoint_dns_name",
        )
    return passed(f"{what} is issued, until {until}")


def covers(names: Sequence[str], domain: str) -> bool:
    """Whether a certificate's names hold for a domain; `*` stands for one label alone."""
    wanted = domain.lower().rstrip(".")
    parent = "*." + wanted.partition(".")[2]
    return any(name.lower() in (wanted, parent) for name in names)


def _renewal(found: Mapping[str, Any]) -> str:
    if found.get("Type") == "IMPORTED":
        return "import its successor under the same ARN: ACM renews none that was imported"
    return "look in ACM why it was not renewed: the DNS record of its validation must stay"


CHECKS = (
    Check(
        "PREFLIGHT_CERTIFICATE",
        "moe-serving:endpoint.certificate_arn",
        "The load balancer's certificate is issued, for the endpoint's name, and not at its end.",
        ("acm:DescribeCertificate",),
        lambda asked: asked.certificate_arn is not None,
        _certificate,
    ),
)
