"""Hugging Face as a node reads it: what a commit holds, and its files, resumed after a break.

The Hub's documented HTTP API, over the urllib3 that boto3 brings: files go on to S3 as they come,
and the Hub's own library would put each on the disk first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote

import urllib3

from node_bootstrap.steps.base import StepError

PUBLIC = "https://huggingface.co"
ENDPOINT_VARIABLE = "HF_ENDPOINT"
"""As the Hub's own tools read it: another address of the Hub, such as a mirror."""
CHUNK_BYTES = 2**20
TRIES = 6
"""Without a byte in between; each that brings one counts anew."""
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
NOT_READ = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".onnx", ".gguf", ".tflite")
"""Copies of the weights in forms that vLLM doesn't read where there are safetensors."""


@dataclass(frozen=True)
class HubFile:
    """One file of a commit. sha256: of a file in large-file storage; blob: git's id of any other.

    Git's id is the SHA-1 of `blob <size>`, a NUL and the content.
    """

    path: str
    size_bytes: int
    sha256: str | None
    blob: str


def wanted(files: tuple[HubFile, ...]) -> tuple[HubFile, ...]:
    """What vLLM reads of a repository: not its copies in other forms, not git's own files."""
    safe = any(f.path.endswith(".safetensors") for f in files)
    return tuple(
        f
        for f in files
        if not any(part.startswith(".") for part in f.path.split("/"))
        and not (safe and (f.path.endswith(NOT_READ) or f.path.startswith("original/")))
    )


def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(maxsize=16, timeout=urllib3.Timeout(connect=10, read=30))


@dataclass(frozen=True)
class Hub:
    """One repository at one commit. token: empty for what everybody may read."""

    repository: str
    revision: str
    token: str = ""
    endpoint: str = ""
    wait_seconds: float = FIRST_WAIT_SECONDS
    pool: urllib3.PoolManager = field(default_factory=_pool, compare=False, repr=False)

    @property
    def base(self) -> str:
        """Where the Hub is."""
        return (self.endpoint or os.environ.get(ENDPOINT_VARIABLE) or PUBLIC).rstrip("/")

    def files(self, deadline: float) -> tuple[HubFile, ...]:
        """All files of the commit, with sizes and digests.

        Raises:
            StepError: there is no such repository or commit, it may not be read, or the Hub is
                not to be reached until the deadline (monotonic seconds).
        """
        path = f"/api/models/{quote(self.repository)}/revision/{quote(self.revision, safe='')}"
        attempts = _Attempts(self.wait_seconds, deadline)
        while True:
            try:
                with _Answer(self._get(f"{path}?blobs=true")) as answer:
                    self._require(answer, self.repository)
                    found = answer.json()
                break
            except (urllib3.exceptions.HTTPError, _BusyError) as error:
                attempts.failed(f"{self.base}: {_words(error)}", error)
        if found.get("sha") != self.revision:
            raise StepError(
                f"{self.repository}: Hugging Face names commit {found.get('sha')} for "
                f"{self.revision}: model.revision must be the commit itself, 40 hex digits"
            )
        return tuple(_file(entry) for entry in found.get("siblings", ()))

    def read(self, file: HubFile, deadline: float) -> Iterator[bytes]:
        """The file in chunks; after a break from where it broke.

        Raises:
            StepError: it may not be read, or does not come until the deadline.
        """
        url = (
            f"/{quote(self.repository)}/resolve/{quote(self.revision, safe='')}/{quote(file.path)}"
        )
        have, attempts = 0, _Attempts(self.wait_seconds, deadline)
        while have < file.size_bytes:
            try:
                with _Answer(self._get(url, have)) as answer:
                    self._require(answer, file.path)
                    if have and answer.status != 206:
                        raise StepError(f"{self.base}{url}: no part of it can be had, only all")
                    for chunk in answer.chunks():
                        have += len(chunk)
                        attempts.came()
                        yield chunk
                        attempts.on_time(f"{file.path} of {self.repository}")
                    answer.require_all(have, file.size_bytes)
            except (urllib3.exceptions.HTTPError, _BusyError) as error:
                where = f"{self.base}{url} after {have} of {file.size_bytes} bytes"
                attempts.failed(f"{where}: {_words(error)}", error)

    def _get(self, path: str, start: int = 0) -> urllib3.BaseHTTPResponse:
        # Redirects lead to another host, which urllib3 doesn't show the token.
        headers = {"User-Agent": "moe-serving", "Accept-Encoding": "identity"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if start:
            headers["Range"] = f"bytes={start}-"
        return self.pool.request(
            "GET",
            self.base + path,
            headers=headers,
            preload_content=False,
            retries=urllib3.Retry(connect=0, read=0, redirect=5, status=0, other=0),
        )

    def _require(self, answer: _Answer, what: str) -> None:
        status = answer.status
        if status in (200, 206):
            return
        if status in (401, 403):
            remedy = (
                "the token may not read it: accept the model's terms with its account"
                if self.token
                else "it is not open to everybody: set moe-serving:huggingface_token"
            )
            raise StepError(f"Hugging Face does not give {what} (HTTP {status}): {remedy}")
        if status == 404:
            raise StepError(
                f"Hugging Face has no {what} in {self.repository} at {self.revision}: look at "
                "model.name and model.revision"
            )
        if status == 429 or status >= 500:
            raise _BusyError(f"HTTP {status}", answer.retry_after())
        raise StepError(f"{self.base}: HTTP {status} for {what}")


class _BusyError(Exception):
    """Not now. wait_seconds: as the Hub asks for; 0: it doesn't say."""

    def __init__(self, what: str, wait_seconds: float = 0.0) -> None:
        super().__init__(what)
        self.wait_seconds = wait_seconds


class _Answer:
    """An answer whose connection is given back however reading ends."""

    def __init__(self, raw: urllib3.BaseHTTPResponse) -> None:
        self._raw = raw
        self.status = raw.status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()
        self._raw.release_conn()

    def json(self) -> Mapping[str, Any]:
        """The body; an answer that is no JSON is one to ask again for."""
        try:
            return self._raw.json()
        except ValueError as error:
            raise _BusyError(f"answered what is no JSON: {error}") from error

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes, so that a break loses nothing of what came before it."""
        while chunk := self._raw.read1(CHUNK_BYTES):
            yield chunk

    def require_all(self, have: int, size: int) -> None:
        """What ended too early is asked for again."""
        if have < size:
            raise _BusyError(f"ended after {have} of {size} bytes")

    def retry_after(self) -> float:
        """Seconds that the Hub asks to wait."""
        given = self._raw.headers.get("Retry-After", "")
        return min(float(given), LONGEST_WAIT_SECONDS) if given.isdigit() else 0.0


@dataclass
class _Attempts:
    """How long to wait after a failure, and when to give up."""

    first_seconds: float
    deadline: float
    count: int = 0

    def came(self) -> None:
        """A byte: the way is open."""
        self.count = 0

    def on_time(self, what: str) -> None:
        """StepError once the deadline is over."""
        if time.monotonic() > self.deadline:
            raise StepError(f"{what}: not done in the time that the step has")

    def failed(self, what: str, error: Exception) -> None:
        """Wait, or raise StepError where that has no sense any more."""
        self.count += 1
        wait = self.first_seconds * 2 ** (self.count - 1)
        if isinstance(error, _BusyError):
            wait = max(wait, error.wait_seconds)
        wait = min(wait, LONGEST_WAIT_SECONDS)
        if self.count >= TRIES or time.monotonic() + wait > self.deadline:
            raise StepError(f"{what} ({self.count} tries)") from error
        time.sleep(wait)


def _file(entry: Mapping[str, Any]) -> HubFile:
    large = entry.get("lfs") or {}
    size = large.get("size", entry.get("size"))
    if size is None:
        raise StepError(f"Hugging Face states no size of {entry.get('rfilename')}")
    return HubFile(entry["rfilename"], size, large.get("sha256"), entry.get("blobId", ""))


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
