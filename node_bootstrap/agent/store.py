"""S3 and SSM as the node sees them: its assignment, its status, the weights, its secrets.

Everything is reached with the credentials of the instance's own role. boto3 finds the endpoint
(AWS_ENDPOINT_URL) and the credentials (instance metadata) by itself.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from node_bootstrap import jsondata
from node_bootstrap.assignment import (
    SCHEMA,
    Assignment,
    WeightFile,
    assignment_key,
    status_key,
)
from node_bootstrap.jsondata import ContractError
from node_bootstrap.leaving import LEAVING_KEY, Leaving
from node_bootstrap.steps.base import StepError
from node_bootstrap.steps.weights import CHUNK_BYTES
from node_bootstrap.ttl import Extension

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from node_bootstrap.status import Status

T = TypeVar("T")

DIGEST = "sha256"
"""Metadata of an object that `save` wrote."""
TAKEN = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")
BUSY = ("SlowDown", "503", "500", "InternalError", "RequestTimeout", "ServiceUnavailable")
"""What S3 says when the same request may do a little later."""
METADATA_SECONDS, METADATA_ATTEMPTS = 5, 5
"""boto3 asks the metadata service once, for a second, which is little while a node boots."""
TRIES = 4
"""Further ones for an object of which nothing comes."""


class StoreError(Exception):
    """The bucket or a parameter could not be used: what failed, and what to look at."""


class Clients(Protocol):
    """Makes boto3 clients by service name."""

    def __call__(self, service: str) -> Any:
        """The client of a service."""
        ...


def clients(region: str) -> Clients:
    """boto3 clients of a region, with limits that suit an agent that asks again anyway.

    Raises:
        StoreError: there are no credentials now.
    """
    core = botocore.session.get_session()
    core.set_config_variable("metadata_service_timeout", METADATA_SECONDS)
    core.set_config_variable("metadata_service_num_attempts", METADATA_ATTEMPTS)
    # boto3-stubs know the names of services as literals only.
    session: Any = boto3.session.Session(region_name=region, botocore_session=core)
    if session.get_credentials() is None:  # clients made without never look for any again
        raise StoreError("the instance metadata service gave no credentials of the node's role")
    config = Config(
        connect_timeout=3,
        read_timeout=20,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=32,
        # boto3 takes a path where AWS_ENDPOINT_URL is set, S3's host name of the bucket elsewhere.
        s3={"addressing_style": "auto"},
    )
    return lambda service: session.client(service, config=config)


@dataclass
class Store:
    """The stack's bucket and parameters. Clients are thread-safe once made."""

    bucket: str
    node: str
    s3: Any
    ssm: Any
    _etag: str = ""
    wait_seconds: float = 1.0

    def new_assignment(self) -> Assignment | None:
        """The assignment, when it is another one than at the last call that returned one.

        Raises:
            StoreError: it can't be read, or is of no form that this bootstrap knows.
        """
        key = assignment_key(self.node)
        where = f"s3://{self.bucket}/{key}"
        conditions = {"IfNoneMatch": self._etag} if self._etag else {}
        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=key, **conditions)
            content = answer["Body"].read()
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("304", "NotModified"):
                return None
            raise StoreError(refusal("read", where, error)) from error
        except (BotoCoreError, OSError) as error:
            raise StoreError(f"{where} can't be read: {error}") from error
        assignment = parse_assignment(content)
        self._etag = answer["ETag"]
        return assignment

    def extension(self, key: str) -> float | None:
        """Until when the bucket lets the nodes live, in seconds since the epoch; None: not said.

        Raises:
            StoreError: the bucket can't be asked, or the document is of no known form.
        """
        document = self._optional(key, Extension)
        return document.until if document else None

    def leaving(self) -> Leaving | None:
        """What the gateway is to let go of; None: nothing was said. StoreError as above."""
        return self._optional(LEAVING_KEY, Leaving)

    def _optional(self, key: str, kind: type[T]) -> T | None:
        where = f"s3://{self.bucket}/{key}"
        try:
            content = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except ClientError as error:
            # A node may not list the bucket, so S3 calls a missing object AccessDenied.
            if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "AccessDenied", "403"):
                return None
            raise StoreError(refusal("read", where, error)) from error
        except (BotoCoreError, OSError) as error:
            raise StoreError(f"{where} can't be read: {error}") from error
        try:
            return jsondata.from_json(kind, content)
        except ContractError as error:
            raise StoreError(f"{where}: {error}") from error

    def put_status(self, status: Status) -> None:
        """Write the status. StoreError when that fails."""
        self.put_text(status_key(self.node), jsondata.to_json(status), "application/json")

    def put_text(self, key: str, text: str, kind: str = "text/plain") -> None:
        """Write an object. StoreError when that fails."""
        try:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=text.encode(), ContentType=kind)
        except ClientError as error:
            raise StoreError(refusal("write", f"s3://{self.bucket}/{key}", error)) from error
        except (BotoCoreError, OSError) as error:
            raise StoreError(f"s3://{self.bucket}/{key} can't be written: {error}") from error

    def read_object(self, bucket: str, key: str, start: int = 0) -> Iterator[bytes]:
        """An object in chunks from a byte on, resumed after a break while it is the same object.

        Raises:
            StepError: it can't be read, or nothing more of it comes.
        """
        where, etag, tries = f"s3://{bucket}/{key}", "", 0
        while True:
            try:
                asked = {"Range": f"bytes={start}-"} if start else {}
                asked |= {"IfMatch": etag} if etag else {}
                answer = self.s3.get_object(Bucket=bucket, Key=key, **asked)
                etag = answer.get("ETag", "")
                for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                    start, tries = start + len(chunk), 0
                    yield chunk
            except ClientError as error:
                if refused_code(error) not in BUSY or tries >= TRIES:
                    raise StepError(refusal("read", where, error)) from error
            except (BotoCoreError, OSError) as error:
                if tries >= TRIES:
                    raise StepError(f"{where}: the transfer broke: {error}") from error
            else:
                return
            time.sleep(self.wait_seconds * 2**tries)
            tries += 1

    def list_objects(self, bucket: str, prefix: str) -> tuple[WeightFile, ...]:
        """All objects under a prefix, with paths below it. StepError when it can't be listed."""
        where = f"s3://{bucket}/{prefix}"
        found = []
        try:
            pages = self.s3.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=prefix):
                found += page.get("Contents", [])
        except ClientError as error:
            raise StepError(refusal("read", where, error)) from error
        except (BotoCoreError, OSError) as error:
            raise StepError(f"{where} can't be listed: {error}") from error
        return tuple(
            WeightFile(entry["Key"].removeprefix(prefix), entry["Size"])
            for entry in found
            if not entry["Key"].endswith("/")  # what consoles make for a folder
        )

    def load(self, key: str) -> bytes | None:
        """An object of the stack's bucket as a whole; None when it is missing.

        Raises:
            StepError: it can't be read, or is not what `save` was given.
        """
        where = f"s3://{self.bucket}/{key}"
        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=key)
            content = answer["Body"].read()
        except ClientError as error:
            # A node may not list the bucket, so S3 calls a missing object AccessDenied.
            if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "AccessDenied", "403"):
                return None
            raise StepError(refusal("read", where, error)) from error
        except (BotoCoreError, OSError) as error:
            raise StepError(f"{where} can't be read: {error}") from error
        noted, found = answer["Metadata"].get(DIGEST), hashlib.sha256(content).hexdigest()
        if noted not in (None, found):
            raise StepError(
                f"{where} has SHA-256 {found}, noted was {noted} when it was written: it was "
                "changed. Delete it, so that the next node makes it anew"
            )
        return content

    def save(self, key: str, content: bytes) -> bool:
        """Write an object of the stack's bucket with its digest; S3 checks that it arrived whole.

        Returns:
            False where there is one already: the first of those who write at once counts.

        Raises:
            StepError: it can't be written.
        """
        try:
            self.s3.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=content,
                ChecksumAlgorithm="SHA256",
                Metadata={DIGEST: hashlib.sha256(content).hexdigest()},
                IfNoneMatch="*",
            )
        except ClientError as error:
            # 409: the other one is not done yet. It will be, or the next node stores its own.
            if error.response.get("Error", {}).get("Code") in TAKEN:
                return False
            raise StepError(refusal("write", f"s3://{self.bucket}/{key}", error)) from error
        except (BotoCoreError, OSError) as error:
            raise StepError(f"s3://{self.bucket}/{key} can't be written: {error}") from error
        return True

    def parameters(self, names: Sequence[str]) -> Mapping[str, str]:
        """Values of SSM parameters by name. StepError when one can't be read."""
        values: dict[str, str] = {}
        for start in range(0, len(names), 10):  # GetParameters takes ten names at most
            wanted = list(names[start : start + 10])
            try:
                answer = self.ssm.get_parameters(Names=wanted, WithDecryption=True)
            except ClientError as error:
                raise StepError(refusal("read", f"SSM {', '.join(wanted)}", error)) from error
            except (BotoCoreError, OSError) as error:
                raise StepError(f"SSM {', '.join(wanted)} can't be read: {error}") from error
            values |= {p["Name"]: p["Value"] for p in answer["Parameters"]}
        missing = [name for name in names if name not in values]
        if missing:
            raise StepError(
                f"SSM has no parameter {', '.join(missing)}: it was removed after the deployment; "
                "deploy again to make it anew"
            )
        return values


def parse_assignment(content: bytes) -> Assignment:
    """Read an assignment. StoreError when it is of another form or schema."""
    try:
        assignment = jsondata.from_json(Assignment, content)
    except ContractError as error:
        raise StoreError(
            f"{error}\nThe program that wrote it is of another version than this bootstrap"
        ) from error
    if assignment.schema != SCHEMA:
        raise StoreError(
            f"the assignment has schema {assignment.schema}, this bootstrap knows {SCHEMA}: "
            "deploy again, so that both are of one version"
        )
    return assignment


def refused_code(error: ClientError) -> str:
    """AWS's own word for a refusal."""
    return error.response.get("Error", {}).get("Code", "")


def refusal(verb: str, where: str, error: ClientError) -> str:
    """What AWS refused, and where to look."""
    code = refused_code(error)
    remedy = {
        "AccessDenied": "the node's role does not allow it",
        "AccessDeniedException": "the node's role does not allow it",
        "403": "the node's role does not allow it",
        "NoSuchKey": "the object is missing: deploy again to upload it",
        "404": "the object is missing: deploy again to upload it",
        "NoSuchBucket": "the bucket is gone: deploy again",
    }.get(code, error.response.get("Error", {}).get("Message", ""))
    return f"{where} can't be {'read' if verb == 'read' else 'written'}: {code} ({remedy})"
