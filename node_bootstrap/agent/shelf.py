"""The stack's bucket for what nodes leave one another: staged weights, compiled kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from botocore.exceptions import BotoCoreError, ClientError

from node_bootstrap.agent.store import Store, refusal
from node_bootstrap.steps.base import StepError

MISSING = ("NoSuchKey", "404", "AccessDenied", "403", "Forbidden", "NotFound")
"""A node may not list the bucket, so S3 calls a missing object AccessDenied."""
THERE_ALREADY = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")


@dataclass(frozen=True)
class BucketShelf:
    """One bucket. s3: a client, which is thread-safe."""

    bucket: str
    s3: Any

    def load(self, key: str) -> bytes | None:
        """An object as a whole; None where it is missing. StepError where it can't be read."""
        try:
            return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except (ClientError, BotoCoreError, OSError) as error:
            if _code(error) in MISSING:
                return None
            raise self._fault("read", key, error) from error

    def known(self, key: str) -> tuple[int, Mapping[str, str]] | None:
        """Size and metadata; None where it is missing. StepError where it can't be asked for."""
        try:
            found = self.s3.head_object(Bucket=self.bucket, Key=key)
        except (ClientError, BotoCoreError) as error:
            if _code(error) in MISSING:
                return None
            raise self._fault("read", key, error) from error
        return found["ContentLength"], found.get("Metadata", {})

    def save(self, key: str, content: bytes, metadata: Mapping[str, str] | None = None) -> None:
        """Write an object; S3 checks that it arrived whole. StepError where it can't."""
        self._put(key, content, Metadata=dict(metadata or {}))

    def stream(self, key: str) -> Iterator[bytes]:
        """An object in chunks. StepError where it can't be read."""
        try:
            yield from self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].iter_chunks(2**20)
        except (ClientError, BotoCoreError, OSError) as error:
            raise self._fault("read", key, error) from error

    def save_file(
        self, key: str, content: IO[bytes], metadata: Mapping[str, str], *, over: bool
    ) -> bool:
        """Write a file, over another only if told so; whether it was. StepError if it can't."""
        only_new = {} if over else {"IfNoneMatch": "*"}
        try:
            self._put(key, content, Metadata=dict(metadata), **only_new)
        except StepError as error:
            if _code(error.__cause__) in THERE_ALREADY:
                return False
            raise
        return True

    def upload(self, key: str, metadata: Mapping[str, str]) -> Parts:
        """Begin an object in parts. StepError where that can't be."""
        try:
            begun = self.s3.create_multipart_upload(
                Bucket=self.bucket, Key=key, Metadata=dict(metadata), ChecksumAlgorithm="SHA256"
            )
        except (ClientError, BotoCoreError) as error:
            raise self._fault("write", key, error) from error
        return Parts(self, key, begun["UploadId"])

    def _put(self, key: str, content: bytes | IO[bytes], **more: Any) -> None:
        try:
            self.s3.put_object(
                Bucket=self.bucket, Key=key, Body=content, ChecksumAlgorithm="SHA256", **more
            )
        except (ClientError, BotoCoreError, OSError) as error:
            raise self._fault("write", key, error) from error

    def _fault(self, verb: str, key: str, error: Exception) -> StepError:
        where = f"s3://{self.bucket}/{key}"
        if isinstance(error, ClientError):
            return StepError(refusal(verb, where, error))
        return StepError(f"{where} can't be {'read' if verb == 'read' else 'written'}: {error}")


@dataclass
class Parts:
    """An object in the making."""

    shelf: BucketShelf
    key: str
    id: str
    _done: list[dict[str, Any]] = field(default_factory=list)

    def part(self, content: bytes) -> None:
        """Send the next part."""
        number = len(self._done) + 1
        answer = self._call("upload_part", PartNumber=number, Body=content, **_CHECKED)
        self._done.append(
            {
                "PartNumber": number,
                "ETag": answer["ETag"],
                **{k: v for k, v in answer.items() if k == "ChecksumSHA256"},
            }
        )

    def complete(self) -> None:
        """Make it an object."""
        self._call("complete_multipart_upload", MultipartUpload={"Parts": self._done})

    def abort(self) -> None:
        """Throw the parts away; what S3 refuses here its lifecycle rule removes a day later."""
        try:
            self._call("abort_multipart_upload")
        except StepError:
            return

    def _call(self, what: str, **more: Any) -> Any:
        shelf = self.shelf
        try:
            return getattr(shelf.s3, what)(
                Bucket=shelf.bucket, Key=self.key, UploadId=self.id, **more
            )
        except (ClientError, BotoCoreError, OSError) as error:
            raise shelf._fault("write", self.key, error) from error  # noqa: SLF001 - its own part


_CHECKED = {"ChecksumAlgorithm": "SHA256"}


def shelf_of(store: Store) -> BucketShelf:
    """The bucket that a node's store is about."""
    return BucketShelf(store.bucket, store.s3)


def _code(error: BaseException | None) -> str:
    return error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""
