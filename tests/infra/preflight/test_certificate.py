from __future__ import annotations

import datetime as dt

import pytest
from certificates import imported

from infra.preflight.certificate import covers, judge_certificate

NOW = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)
NAME = "llm.example.org"
DAY = 86400


@pytest.fixture(scope="module")
def acm(admin):
    return admin.client("acm")


@pytest.fixture
def balanced(asked):
    """A stack with a load balancer that has this certificate."""

    def make(arn: str, domain: str | None = NAME):
        return asked(balanced=True, certificate_arn=arn, domain=domain)

    return make


def test_a_certificate_that_is_issued_for_the_domain_passes(result_of, balanced, acm):
    result = result_of("CERTIFICATE", balanced(imported(acm, NAME)))
    assert result.state == "PASS"
    assert f"for {NAME} is issued, until 20" in result.message


def test_a_stack_without_a_certificate_is_not_asked_about_one(results_of, asked):
    assert results_of("CERTIFICATE", asked(balanced=True)) == []


def test_a_certificate_that_ends_soon_is_a_warning_and_says_how_it_is_renewed(
    result_of, balanced, acm
):
    result = result_of("CERTIFICATE", balanced(imported(acm, NAME, seconds=9.5 * DAY)))
    assert (result.state, "expires in 9 days" in result.message) == ("WARN", True)
    assert "import its successor under the same ARN" in result.remedy


def test_a_certificate_that_nobody_validated_fails_and_says_what_acm_waits_for(
    result_of, balanced, acm
):
    asked_for = acm.request_certificate(DomainName=NAME, ValidationMethod="DNS")
    result = result_of("CERTIFICATE", balanced(asked_for["CertificateArn"]))
    assert (result.state, "is PENDING_VALIDATION" in result.message) == ("FAIL", True)
    assert result.remedy.startswith("make the DNS record")


def test_a_certificate_for_another_name_fails(result_of, balanced, acm):
    result = result_of("CERTIFICATE", balanced(imported(acm, "www.example.org")))
    assert result.state == "FAIL"
    assert f"does not hold for endpoint.domain {NAME}" in result.message


def test_a_certificate_without_a_domain_to_hold_for_is_a_warning(result_of, balanced, acm):
    result = result_of("CERTIFICATE", balanced(imported(acm, NAME), domain=None))
    assert result.state == "WARN"
    assert result.remedy == (
        f"set endpoint.domain to {NAME}, and point it at the output endpoint_dns_name"
    )


def test_a_certificate_that_is_not_there_fails(result_of, balanced):
    nobodys = "arn:aws:acm:us-east-1:123456789012:certificate/0a1b2c3d-0000-0000-0000-000000000000"
    result = result_of("CERTIFICATE", balanced(nobodys))
    assert result.state == "FAIL"
    assert f"ACM in us-east-1 has no certificate {nobodys}" in result.message


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("eu-west-1:123456789012", "is in eu-west-1,"),
        ("us-east-1:210987654321", "is in account 210987654321,"),
        ("eu-west-1:210987654321", "is in eu-west-1 of account 210987654321,"),
    ],
)
def test_a_certificate_of_another_region_or_account_fails(result_of, balanced, place, told):
    arn = f"arn:aws:acm:{place}:certificate/0a1b2c3d-0000-0000-0000-000000000000"
    result = result_of("CERTIFICATE", balanced(arn))
    assert (result.state, told in result.message) == ("FAIL", True)


# Judged as plain values: the account takes no certificate that has ended, and revokes none.
def described(**changes):
    return {
        "CertificateArn": "arn",
        "SubjectAlternativeNames": [NAME],
        "Status": "ISSUED",
        "Type": "AMAZON_ISSUED",
        "NotAfter": NOW + dt.timedelta(days=90),
        **changes,
    }


@pytest.mark.parametrize("status", ["EXPIRED", "REVOKED", "INACTIVE", "VALIDATION_TIMED_OUT"])
def test_a_certificate_in_any_other_state_fails(status):
    assert judge_certificate(described(Status=status), NAME, NOW).state == "FAIL"


def test_why_acm_refused_a_request_is_told():
    found = described(Status="FAILED", FailureReason="CAA_ERROR")
    assert "is FAILED (CAA_ERROR)" in judge_certificate(found, NAME, NOW).message


def test_a_certificate_whose_end_is_past_fails_whatever_its_state_says():
    found = described(NotAfter=NOW - dt.timedelta(seconds=1))
    assert judge_certificate(found, NAME, NOW).state == "FAIL"


def test_a_certificate_of_acm_that_ends_soon_was_not_renewed():
    verdict = judge_certificate(described(NotAfter=NOW + dt.timedelta(days=29)), NAME, NOW)
    assert (verdict.state, "why it was not renewed" in verdict.remedy) == ("WARN", True)


COVERED = {
    "llm.example.org": True,
    "LLM.example.org.": True,
    "a.apps.example.org": True,
    "a.b.apps.example.org": False,
    "apps.example.org": False,
    "example.org": False,
}


@pytest.mark.parametrize("domain", COVERED)
def test_the_names_that_a_certificate_holds_for(domain):
    assert covers([NAME, "*.apps.example.org"], domain) == COVERED[domain]
