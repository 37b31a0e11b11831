"""Weights on Hugging Face: one node of the stack copies them to S3, all others wait for that.

A file goes through the node in parts and never touches its disk. It gets its name in the bucket
only once its digest is right, and the manifest is written last: where that is, all is.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from node_bootstrap import durable, jsondata
from node_bootstrap.assignment import Stage, WeightFile, Weights
from node_bootstrap.jsondata import ContractError
from node_bootstrap.status import NodePhase
from node_bootstrap.steps.base import Check, Frequency, StepError, key_of
from node_bootstrap.steps.hub import Hub, HubFile, wanted

SCHEMA = 1
PARALLEL = 4
PART_BYTES = 16 * 2**20
MOST_PARTS = 9_000
"""S3 takes 10,000 parts of an object."""
TOLD_SECONDS = 3.0
POLL_SECONDS = 2.0
SHA256, GIT_BLOB = "sha256", "git-blob"
"""Metadata of an object that was staged: what it was checked against."""


def manifest_key(prefix: str) -> str:
    """S3 key of the list of a model's files, beside its folder: vLLM may list the folder."""
    return f"{prefix.rstrip('/')}.manifest.json"


def progress_key(prefix: str) -> str:
    """S3 key of how far the copying is."""
    return f"{prefix.rstrip('/')}.staging.json"


@dataclass(frozen=True)
class Manifest:
    """A whole model in S3: every file with its size and SHA-256."""

    schema: int
    repository: str
    revision: str
    files: tuple[WeightFile, ...]


@dataclass(frozen=True)
class Staging:
    """How far the copying is: files and bytes of all, and who copies."""

    node: str
    files_done: int
    files: int
    bytes_done: int
    bytes: int
    fault: str = ""

    @property
    def words(self) -> str:
        """For people."""
        told = (
            f"{self.node} copies the weights from Hugging Face: {self.files_done} of {self.files} "
            f"files, {self.bytes_done / 1e9:.2f} of {self.bytes / 1e9:.2f} GB"
        )
        return f"{told}; its last fault: {self.fault}" if self.fault else told


class Upload(Protocol):
    """An object that comes in parts and is not there until it is whole."""

    def part(self, content: bytes) -> None:
        """The next part."""
        ...

    def complete(self) -> None:
        """Give it its name."""
        ...

    def abort(self) -> None:
        """Leave nothing."""
        ...


class Bucket(Protocol):
    """The stack's bucket, as staging needs it. All raise StepError."""

    def load(self, key: str) -> bytes | None:
        """A small object; None where it is missing."""
        ...

    def save(self, key: str, content: bytes, metadata: Mapping[str, str] | None = None) -> None:
        """Write one whole."""
        ...

    def known(self, key: str) -> tuple[int, Mapping[str, str]] | None:
        """Size and metadata; None where it is missing."""
        ...

    def upload(self, key: str, metadata: Mapping[str, str]) -> Upload:
        """Begin one in parts."""
        ...


def manifest_of(bucket: Bucket, prefix: str, revision: str) -> Manifest | None:
    """The manifest, where the model is whole; None before."""
    text = bucket.load(manifest_key(prefix))
    if text is None:
        return None
    try:
        found = jsondata.from_json(Manifest, text)
    except ContractError as error:
        raise StepError(
            f"{manifest_key(prefix)} is of another version: remove it, so that the weights are "
            f"copied anew ({error})"
        ) from error
    return found if found.revision == revision else None


@dataclass
class _Count:
    """What came so far, of all threads."""

    total: Staging
    lock: threading.Lock = field(default_factory=threading.Lock)
    told_at: float = 0.0

    def add(self, files: int, size: int) -> Staging | None:
        """Count; the whole, if it is time to tell it."""
        with self.lock:
            now = self.total
            self.total = replace(
                now, files_done=now.files_done + files, bytes_done=now.bytes_done + size
            )
            if time.monotonic() - self.told_at < TOLD_SECONDS:
                return None
            self.told_at = time.monotonic()
            return self.total


@dataclass(frozen=True)
class StageStep:
    """Copies a commit of a repository to the stack's bucket, once.

    bucket: the stack's. token: reads the token; empty where none is needed. tell: how far it is,
    for the node's status. done: file that remembers that all was there.
    """

    weights: Weights
    stage: Stage
    bucket: Bucket
    token: Callable[[], str]
    tell: Callable[[str], None]
    done: Path
    name: str = "stage"
    phase: NodePhase = "weights"
    frequency: Frequency = "change"
    timeout_seconds: float = 12 * 3600
    needs: tuple[str, ...] = ("hardware",)
    part_bytes: int = PART_BYTES

    @property
    def key(self) -> str:
        """Digest of repository, commit and place."""
        w = self.weights
        return key_of((w.bucket, w.prefix, self.stage))

    def check(self) -> Check:
        """Remember; S3 is not asked."""
        where = f"s3://{self.weights.bucket}/{self.weights.prefix}"
        if self.done.is_file() and self.done.read_text() == self.key:
            return Check(done=True, detail=f"{self.stage.repository} is in {where}")
        return Check(done=False, detail=f"{self.stage.repository} is not known to be in {where}")

    def apply(self, deadline: float) -> None:
        """Copy what is missing, then write the manifest.

        Raises:
            StepError: a file can't be had, is not what its digest says, or can't be written.
        """
        revision = self.stage.revision or ""
        if manifest_of(self.bucket, self.weights.prefix, revision) is None:
            try:
                self._copy(Hub(self.stage.repository, revision, self.token()), deadline)
            finally:
                self.tell("")
        durable.write(self.done, self.key.encode())

    def _copy(self, hub: Hub, deadline: float) -> None:
        files = wanted(hub.files(deadline))
        if not any(f.path == "config.json" for f in files):
            raise StepError(f"{hub.repository} has no config.json: it is no model that vLLM reads")
        size = sum(f.size_bytes for f in files)
        count = _Count(Staging(self.stage.node, 0, len(files), 0, size))
        self._say(count.total)

        def one(file: HubFile) -> WeightFile | str:
            try:
                return self._one(hub, file, deadline, count)
            except StepError as error:
                return str(error)

        with ThreadPoolExecutor(PARALLEL) as pool:
            results = list(pool.map(one, files))
        faults = [r for r in results if isinstance(r, str)]
        if faults:
            self._say(replace(count.total, fault=faults[0]))
            raise StepError(
                f"{len(faults)} of {len(files)} files of {hub.repository} could not be copied:\n"
                + "\n".join(f"  - {f}" for f in faults[:10])
            )
        made = tuple(r for r in results if isinstance(r, WeightFile))
        self._say(count.total)
        manifest = Manifest(SCHEMA, hub.repository, hub.revision, made)
        self.bucket.save(manifest_key(self.weights.prefix), jsondata.to_json(manifest).encode())

    def _one(self, hub: Hub, file: HubFile, deadline: float, count: _Count) -> WeightFile:
        key = f"{self.weights.prefix}{file.path}"
        there = self.bucket.known(key)
        if there is not None and _same(file, *there):
            self._count(count, 1, file.size_bytes)
            return WeightFile(file.path, file.size_bytes, there[1][SHA256])
        digests = _Digests(file.size_bytes)
        part = max(self.part_bytes, -(-file.size_bytes // MOST_PARTS))
        parts = _cut(hub.read(file, deadline), part)
        if file.size_bytes <= part:
            content = b"".join(parts)
            digests.update(content)
            found = digests.require(file)
            self.bucket.save(key, content, found)
            self._count(count, 1, file.size_bytes)
            return WeightFile(file.path, file.size_bytes, found[SHA256])
        # Its digest is known beforehand: only large-file storage holds what is so large.
        upload = self.bucket.upload(key, {SHA256: file.sha256 or "", GIT_BLOB: file.blob})
        try:
            for content in parts:
                digests.update(content)
                upload.part(content)
                self._count(count, 0, len(content))
            found = digests.require(file)
            upload.complete()
        except BaseException:
            upload.abort()
            raise
        self._count(count, 1, 0)
        return WeightFile(file.path, file.size_bytes, found[SHA256])

    def _count(self, count: _Count, files: int, size: int) -> None:
        told = count.add(files, size)
        if told is not None:
            self._say(told)

    def _say(self, staging: Staging) -> None:
        self.tell(staging.words)
        self.bucket.save(progress_key(self.weights.prefix), jsondata.to_json(staging).encode())


@dataclass(frozen=True)
class Staged:
    """Lists the files of a model that another node stages: waits until all are there.

    tell: what is waited for, for the node's status.
    """

    bucket: Bucket
    stage: Stage
    tell: Callable[[str], None]
    timeout_seconds: float
    poll_seconds: float = POLL_SECONDS

    def __call__(self, bucket: str, prefix: str) -> tuple[WeightFile, ...]:
        """The files. StepError when they don't come in time."""
        deadline = time.monotonic() + self.timeout_seconds
        told = f"{self.stage.node} has not begun to copy the weights from Hugging Face"
        try:
            while True:
                manifest = manifest_of(self.bucket, prefix, self.stage.revision or "")
                if manifest is not None:
                    return manifest.files
                told = self._progress(prefix) or told
                if time.monotonic() > deadline:
                    raise StepError(f"s3://{bucket}/{prefix} is not whole yet: {told}")
                self.tell(f"waiting: {told}")
                time.sleep(self.poll_seconds)
        finally:
            self.tell("")

    def _progress(self, prefix: str) -> str:
        text = self.bucket.load(progress_key(prefix))
        try:
            return jsondata.from_json(Staging, text).words if text else ""
        except ContractError:
            return ""


@dataclass(frozen=True)
class AwaitStep:
    """Where vLLM reads the weights from S3 by itself: they must be whole before it starts."""

    weights: Weights
    files: Staged
    done: Path
    name: str = "weights"
    phase: NodePhase = "weights"
    frequency: Frequency = "change"
    timeout_seconds: float = 12 * 3600
    needs: tuple[str, ...] = ("hardware",)

    @property
    def key(self) -> str:
        """Digest of the place."""
        return key_of(self.weights)

    def check(self) -> Check:
        """Remember; S3 is not asked."""
        where = f"s3://{self.weights.bucket}/{self.weights.prefix}"
        if self.done.is_file() and self.done.read_text() == self.key:
            return Check(done=True, detail=f"{where} is whole; vLLM reads it by itself")
        return Check(done=False, detail=f"{where} is not known to be whole")

    def apply(self, deadline: float) -> None:
        """Wait for the manifest."""
        del deadline
        self.files(self.weights.bucket, self.weights.prefix)
        durable.write(self.done, self.key.encode())


class _Digests:
    """SHA-256 of a content, and git's id of it."""

    def __init__(self, size_bytes: int) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._blob = hashlib.sha1(f"blob {size_bytes}\0".encode(), usedforsecurity=False)

    def update(self, content: bytes) -> None:
        self.size += len(content)
        self._sha256.update(content)
        self._blob.update(content)

    def require(self, file: HubFile) -> dict[str, str]:
        """The digests, if they are the file's; StepError otherwise."""
        sha256, blob = self._sha256.hexdigest(), self._blob.hexdigest()
        wrong = sha256 != file.sha256 if file.sha256 else blob != file.blob
        if self.size != file.size_bytes or wrong:
            kind = "SHA-256" if file.sha256 else "git blob"
            raise StepError(
                f"{file.path}: came with {self.size} bytes and {kind} "
                f"{sha256 if file.sha256 else blob}, Hugging Face states {file.size_bytes} bytes "
                f"and {file.sha256 or file.blob}: it was damaged on the way and is not kept"
            )
        return {SHA256: sha256, GIT_BLOB: blob if not file.sha256 else file.blob}


def _same(file: HubFile, size: int, metadata: Mapping[str, str]) -> bool:
    """Whether an object is what an earlier run staged of this file."""
    if size != file.size_bytes or not metadata.get(SHA256):
        return False
    return metadata[SHA256] == file.sha256 if file.sha256 else metadata.get(GIT_BLOB) == file.blob


def _cut(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in parts of one size; the last one is what remains."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
