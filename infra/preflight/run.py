"""Asks the account everything at once, and gives one answer for each check."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError

from infra.preflight import capacity, certificate, identity, image, model, network, quotas
from infra.preflight.aws import CONFIG, CREDENTIALS_REFUSED, Aws, code_of, missing_permission
from infra.preflight.check import Check
from infra.preflight.result import Result, State, Verdict, failed, passed, skipped

if TYPE_CHECKING:
    from collections.abc import Sequence

    import boto3

    from infra.preflight.asked import Asked

CREDENTIALS = "PREFLIGHT_CREDENTIALS"
DEADLINE_SECONDS = 25.0
"""All answers are shown within 30 s; the rest is for starting and printing."""
CHECKS: tuple[Check, ...] = (
    *identity.CHECKS,
    *capacity.CHECKS,
    *quotas.CHECKS,
    *image.CHECKS,
    *network.CHECKS,
    *certificate.CHECKS,
    *model.CHECKS,
)


def run(
    session: boto3.Session,
    asked: Asked,
    deadline_seconds: float = DEADLINE_SECONDS,
    every: Sequence[Check] = CHECKS,
    deployer: str | None = None,
) -> tuple[Result, ...]:
    """Every check that a stack needs, in their order.

    Args:
        session: credentials and region.
        asked: what the stack asks of the account.
        deadline_seconds: what has not answered by then is SKIPPED.
        every: the checks.
        deployer: ARN of who updates the stack, where it isn't the session itself.
    """
    started = time.monotonic()
    first, aws = _credentials(session, deployer)
    if aws is None:
        return (first,)
    checks = [check for check in every if check.applies(asked)]
    pool = ThreadPoolExecutor(len(checks), thread_name_prefix="preflight")
    futures = [pool.submit(results, check, aws, asked) for check in checks]
    wait(futures, timeout=max(0.0, deadline_seconds - (time.monotonic() - started)))
    answers = [_answer(c, f, deadline_seconds) for c, f in zip(checks, futures, strict=True)]
    pool.shutdown(wait=False, cancel_futures=True)
    return (first, *(result for each in answers for result in each))


def _credentials(session: boto3.Session, deployer: str | None) -> tuple[Result, Aws | None]:
    """Whose credentials these are. Nothing else can be asked without them."""
    if not session.region_name:
        verdict = failed("no AWS region is known", "set aws:region of the stack, or AWS_REGION")
        return _result("PREFLIGHT_REGION", "aws:region", verdict, 0.0), None
    began = time.monotonic()
    caller = None
    try:
        caller = session.client("sts", config=CONFIG).get_caller_identity()
        verdict = passed(f"{caller['Arn']} in account {caller['Account']}")
    except EndpointConnectionError as error:
        verdict = failed(f"AWS can't be reached: {error}", "look at the network and AWS_REGION")
    except ClientError as error:
        refused = code_of(error) in CREDENTIALS_REFUSED
        what = "AWS does not take these credentials" if refused else "AWS refused"
        verdict = failed(f"{what}: {error}", "log in again as your account asks")
    except BotoCoreError as error:
        verdict = failed(
            f"no AWS credentials that can be used: {error}",
            "set AWS_PROFILE, or log in as your account asks",
        )
    result = _result(CREDENTIALS, "aws:profile", verdict, time.monotonic() - began)
    if caller is None:
        return result, None
    return result, Aws.of(session, caller["Account"], caller["Arn"], deployer)


def results(check: Check, aws: Aws, asked: Asked) -> Sequence[Result]:
    """What one check answers; a missing permission or an AWS that is silent is an answer too."""
    began = time.monotonic()
    permission = ""
    try:
        verdicts = list(check.look(aws, asked))
    except ClientError as error:
        permission = missing_permission(error)
        verdicts = [_not_told(error, permission)]
    except BotoCoreError as error:
        verdicts = [skipped(f"AWS did not answer: {error}", "try again")]
    seconds = time.monotonic() - began
    return [_result(check.code, check.where, v, seconds, permission) for v in verdicts]


def _not_told(error: ClientError, permission: str) -> Verdict:
    if permission:
        return skipped(
            f"these credentials lack {permission}", f"allow {permission}, or look by hand"
        )
    return skipped(f"AWS answered {code_of(error)}: {error}", "try again")


def _answer(check: Check, future: Future[Sequence[Result]], deadline: float) -> Sequence[Result]:
    if future.done():
        return future.result()
    verdict = skipped(f"AWS did not answer within {deadline:.0f} s", "try again")
    return [_result(check.code, check.where, verdict, deadline)]


def _result(
    code: str, where: str, verdict: Verdict, seconds: float, permission: str = ""
) -> Result:
    return Result(
        code, verdict.state, where, verdict.message, verdict.remedy, permission, round(seconds, 2)
    )


def worst(results: Sequence[Result]) -> State:
    """FAIL where anything fails, else WARN, SKIPPED, PASS."""
    order = (State.FAIL, State.WARN, State.SKIPPED)
    states = {result.state for result in results}
    return next((state for state in order if state in states), State.PASS)
