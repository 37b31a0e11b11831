"""S3 and SSM as the node sees them: its assignment, its status, the weights, its secrets.

Everything is reached with the credentials of the instance's own role. boto3 finds the endpoint
(AWS_ENDPOINT_URL) and the credentials (instance metadata) by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from node_bootstrap import jsondata
from node_bootstrap.assignment import (
    SCHEMA,
    Assignment,
    Extension,
    assignment_key,
    status_key,
)
from node_bootstrap.jsondata import ContractError
from node_bootstrap.steps.base import StepError
from node_bootstrap.steps.weights import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from node_bootstrap.status import Status


class StoreError(Exception):
    """The bucket or a parameter could not be used: what failed, and what to look at."""


class Clients(Protocol):
    """Makes boto3 clients by service name."""

    def __call__(self, service: str) -> Any:
        """The client of a service."""
        ...


def clients(region: str) -> Clients:
    """boto3 clients of a region, with limits that suit an agent that asks again anyway."""
    # boto3-stubs know the names of services as literals only.
    session: Any = boto3.session.Session(region_name=region)
    config = Config(
        connect_timeout=3,
        read_timeout=20,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=16,
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
            return jsondata.from_json(Extension, content).until
        except ContractError as error:
            raise StoreError(f"{where}: {error}") from error

    def put_status(self, status: Status) -> None:
        """Write the status. StoreError when that fails."""
        key = status_key(self.node)
        try:
            self.s3.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=jsondata.to_json(status).encode(),
                ContentType="application/json",
            )
        except ClientError as error:
            raise StoreError(refusal("write", f"s3://{self.bucket}/{key}", error)) from error
        except (BotoCoreError, OSError) as error:
            raise StoreError(f"s3://{self.bucket}/{key} can't be written: {error}") from error

    def read_object(self, bucket: str, key: str) -> Iterator[bytes]:
        """An object in chunks. StepError when it can't be read."""
        where = f"s3://{bucket}/{key}"
        try:
            body = self.s3.get_object(Bucket=bucket, Key=key)["Body"]
            yield from body.iter_chunks(CHUNK_BYTES)
        except ClientError as error:
            raise StepError(refusal("read", where, error)) from error
        except (BotoCoreError, OSError) as error:
            raise StepError(f"{where}: the transfer broke: {error}") from error

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


def refusal(verb: str, where: str, error: ClientError) -> str:
    """What AWS refused, and where to look."""
    code = error.response.get("Error", {}).get("Code", "")
    remedy = {
        "AccessDenied": "the node's role does not allow it",
        "AccessDeniedException": "the node's role does not allow it",
        "403": "the node's role does not allow it",
        "NoSuchKey": "the object is missing: deploy again to upload it",
        "404": "the object is missing: deploy again to upload it",
        "NoSuchBucket": "the bucket is gone: deploy again",
    }.get(code, error.response.get("Error", {}).get("Message", ""))
    return f"{where} can't be {'read' if verb == 'read' else 'written'}: {code} ({remedy})"
