"""The model's files: where they are, and whether they can be read."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from botocore.exceptions import ClientError

from infra.names import bucket_name
from infra.preflight.aws import Aws, code_of
from infra.preflight.check import Check, always
from infra.preflight.result import Verdict, failed, passed, skipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from infra.preflight.asked import Asked

HUB = "https://huggingface.co"
HUB_SECONDS = 5.0
_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")


def _regions(aws: Aws, asked: Asked) -> Iterator[Verdict]:
    """The model's bucket in the stack's region; the stack's own too, where it is there already."""
    if asked.model_source.startswith("s3://"):
        bucket, _ = split(asked.model_source)
        region = _region_of(aws, bucket)
        if region is None:
            yield failed(f"there is no bucket {bucket}", "set model.source to a bucket that exists")
        elif region != aws.region:
            yield failed(
                f"{bucket} is in {region}, the stack in {aws.region}: the gateway endpoint does "
                "not reach it, and every byte of the weights is billed as transfer",
                f"copy the model to a bucket in {aws.region}",
            )
        else:
            yield passed(f"{bucket} is in {region}, as the stack")
    own = bucket_name(asked.stack, aws.account)
    region = _region_of(aws, own)
    if region is not None and region != aws.region:
        yield failed(
            f"the stack's bucket {own} is in {region} already, aws:region is {aws.region}",
            "destroy the stack there first, or give this one another name",
        )
    else:
        yield passed(f"the stack's bucket {own} is {'to be made' if region is None else 'there'}")


def _region_of(aws: Aws, bucket: str) -> str | None:
    """Region of a bucket, None where there is none; S3 tells it even to those it refuses."""
    try:
        answer = aws.s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if code_of(error) in ("404", "NoSuchBucket"):
            return None
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = headers.get("x-amz-bucket-region")
        if not region:
            raise
        return region
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    return answer.get("BucketRegion") or headers.get("x-amz-bucket-region") or aws.region


def _listing(aws: Aws, asked: Asked) -> Iterator[Verdict]:
    bucket, prefix = split(asked.model_source)
    try:
        pages = aws.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = [(o["Key"], o["Size"]) for page in pages for o in page.get("Contents", ())]
    except ClientError as error:
        if code_of(error) != "NoSuchBucket":
            raise
        yield failed(f"there is no bucket {bucket}", "set model.source to a bucket that exists")
        return
    yield judge_listing(asked.model_source, prefix, found)


def judge_listing(source: str, prefix: str, found: Sequence[tuple[str, int]]) -> Verdict:
    """Whether a listing (key, bytes) is one of a model: its config.json and its weights."""
    names = {key.removeprefix(prefix): size for key, size in found}
    lacking = [] if "config.json" in names else ["config.json"]
    weights = {n: size for n, size in names.items() if n.endswith(_WEIGHTS)}
    lacking += [] if weights else ["files of weights (*.safetensors)"]
    if lacking:
        return failed(
            f"{source} holds {len(names)} objects, but no {' and no '.join(lacking)}",
            "set model.source to the folder of the model's config.json",
        )
    empty = sorted(name for name, size in weights.items() if size == 0)
    if empty:
        return failed(f"{source}: {', '.join(empty)} is empty", "upload it again")
    total = sum(names.values()) / 2**30
    return passed(f"{source}: {len(names)} objects, {total:.1f} GiB")


def _hub(_: Aws, asked: Asked) -> Iterator[Verdict]:
    place = Place(token=token(), stack_has_token=asked.model_token)
    yield hub(asked.model_name, asked.model_revision, place)


@dataclass(frozen=True)
class Place:
    """The Hub, and what is here to ask it with.

    token: of this machine; empty where it has none. stack_has_token: moe-serving:huggingface_token
    is set; its value is the nodes' alone.
    """

    token: str = ""
    stack_has_token: bool = False
    base: str = HUB
    timeout: float = HUB_SECONDS


def hub(model: str, revision: str | None, place: Place) -> Verdict:
    """Whether the nodes can read a model on Hugging Face, and whether its commit is pinned."""
    try:
        status, commit = _ask(model, revision, place, "")
        gated = status in (401, 403)
        if gated and place.token:
            status, commit = _ask(model, revision, place, place.token)
    except OSError as error:
        return skipped(f"Hugging Face can't be asked from here ({error})", "try again from there")
    if gated and (status != 200 or not place.stack_has_token):
        return _gated(model, place)
    if status == 404:
        return failed(f"Hugging Face has no {model} at {revision or 'main'}", "set model.name")
    if status != 200:
        return skipped(f"Hugging Face answered HTTP {status}", "try again")
    if commit and revision != commit:
        return failed(
            f"{model} at {revision or 'main'} is commit {commit} today, and moves",
            f"set model.revision to {commit}",
        )
    return passed(f"{model} is on Hugging Face{' and the token reads it' if gated else ''}")


def _gated(model: str, place: Place) -> Verdict:
    if not place.stack_has_token:
        return failed(
            f"Hugging Face does not give {model} to everybody, and the stack has no token",
            "accept the model's terms, then `pulumi config set --secret "
            "moe-serving:huggingface_token`",
        )
    if not place.token:
        return passed(f"{model} is gated; the stack has a token, which is not tried from here")
    return failed(
        f"the token of this machine may not read {model}", "accept the model's terms with it"
    )


def _ask(model: str, revision: str | None, place: Place, token: str) -> tuple[int, str]:
    """Status, and the commit that the answer is of; OSError where there is none."""
    url = f"{place.base}/{quote(model)}/resolve/{quote(revision or 'main')}/config.json"
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - https, or a test's own
    if token:
        # Not for the host that a redirect leads to.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=place.timeout) as answer:  # noqa: S310
            return 200, answer.headers.get("X-Repo-Commit", "")
    except urllib.error.HTTPError as error:
        return error.code, ""


def token() -> str:
    """This machine's token of Hugging Face, from where its own tools have it; or nothing."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    path = Path(os.environ.get("HF_TOKEN_PATH") or f"{home}/token").expanduser()
    given = os.environ.get("HF_TOKEN") or (path.read_text() if path.is_file() else "")
    return given.strip()


def split(source: str) -> tuple[str, str]:
    """Bucket and prefix (with a slash at its end) of s3://bucket/prefix."""
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/")
    return bucket, f"{prefix}/" if prefix else ""


CHECKS = (
    Check(
        "PREFLIGHT_BUCKET_REGION",
        "moe-serving:model.source",
        "Buckets are in the stack's region.",
        ("s3:ListBucket",),
        always,
        _regions,
    ),
    Check(
        "PREFLIGHT_MODEL",
        "moe-serving:model.source",
        "The model's objects can be listed, and are a model's.",
        ("s3:ListBucket",),
        lambda asked: asked.model_source.startswith("s3://"),
        _listing,
    ),
    Check(
        "PREFLIGHT_HUGGING_FACE",
        "moe-serving:model.source",
        "The model on Hugging Face can be read, at the commit that is pinned.",
        (),
        lambda asked: asked.model_source == "hf",
        _hub,
    ),
)
