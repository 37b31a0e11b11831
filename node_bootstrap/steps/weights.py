"""The model's files: from S3 to a folder of the node, checked by size and SHA-256.

A file gets its name only once it is whole and right, so a break at any moment leaves a folder
that the next run goes on from, in the middle of a file too where its digest is known. What was
checked is remembered with the file's size and time of change, so that finding everything in place
does not read hundreds of gigabytes again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from node_bootstrap import durable
from node_bootstrap.steps.base import Check, Frequency, StepError, key_of

if TYPE_CHECKING:
    from node_bootstrap.assignment import WeightFile, Weights
    from node_bootstrap.status import NodePhase

PARALLEL = 16
CHUNK_BYTES = 4 * 2**20
PARTIAL = ".part"

Reader = Callable[[str, str, int], Iterator[bytes]]
"""(bucket, key, first byte) -> the object's bytes in chunks; StepError when it can't be read."""


@dataclass(frozen=True)
class WeightsStep:
    """Keeps one folder equal to a list of files.

    read: how an object is read. ledger: file that remembers what was checked.
    """

    wanted: Weights
    read: Reader
    ledger: Path
    name: str = "weights"
    phase: NodePhase = "weights"
    frequency: Frequency = "change"
    timeout_seconds: float = 4 * 3600
    needs: tuple[str, ...] = ("hardware",)

    @property
    def key(self) -> str:
        """Digest of the list of files."""
        return key_of(self.wanted)

    def check(self) -> Check:
        """Compare sizes, times and what was checked before."""
        missing = self._missing(self._ledger())
        stale = self._stale()
        if missing or stale:
            size = sum(f.size_bytes for f in missing) / 1e9
            detail = f"{len(missing)} files ({size:.2f} GB) to fetch, {len(stale)} to remove"
            return Check(done=False, detail=detail)
        total = sum(f.size_bytes for f in self.wanted.files)
        return Check(
            done=True,
            detail=f"{len(self.wanted.files)} files, {total / 1e9:.2f} GB "
            f"in {self.wanted.destination}",
        )

    def apply(self, deadline: float) -> None:
        """Remove what does not belong, fetch what is missing, several files at once."""
        self._guard()
        folder = Path(self.wanted.destination)
        folder.mkdir(parents=True, exist_ok=True)
        for path in self._stale():
            path.unlink(missing_ok=True)
        ledger = self._ledger()
        ledger.update(self._recheck(ledger))
        missing = self._missing(ledger)
        self._room(missing)
        lock = threading.Lock()

        def fetch(file: WeightFile) -> str:
            try:
                entry = self._fetch(file, deadline)
            except StepError as error:
                return str(error)
            with lock:
                ledger[file.path] = entry
                self._save(ledger)
            return ""

        with ThreadPoolExecutor(PARALLEL) as pool:
            errors = [e for e in pool.map(fetch, missing) if e]
        self._save(ledger)
        if errors:
            raise StepError(
                f"{len(errors)} of {len(missing)} files of the model could not be fetched:\n"
                + "\n".join(f"  - {e}" for e in errors[:10])
            )

    def _fetch(self, file: WeightFile, deadline: float) -> str:
        target = Path(self.wanted.destination) / file.path
        partial = target.with_name(target.name + PARTIAL)
        target.parent.mkdir(parents=True, exist_ok=True)
        key = f"{self.wanted.prefix.rstrip('/')}/{file.path}"
        where = f"s3://{self.wanted.bucket}/{key}"
        # What lies there may be of another object: only a digest of the whole can tell.
        digest, size = _begun(partial) if file.sha256 else (hashlib.sha256(), 0)
        if size > file.size_bytes:
            digest, size = hashlib.sha256(), 0
        resumed = size > 0
        with partial.open("ab" if size else "wb") as out:
            for chunk in self._rest(key, size, file):
                digest.update(chunk)
                size += len(chunk)
                out.write(chunk)
                if time.monotonic() > deadline:
                    raise StepError(f"{where}: not done in {self.timeout_seconds:.0f} s")
        found = digest.hexdigest()
        if size != file.size_bytes or file.sha256 not in (None, found):
            partial.unlink()
            if resumed:  # a disk that lost power may hold what was never written
                return self._fetch(file, deadline)
            raise StepError(
                f"{where} has {size} bytes and SHA-256 {found}, planned are {file.size_bytes} "
                f"bytes and {file.sha256}: the object was changed; deploy again to plan with it"
            )
        partial.chmod(0o644)
        partial.replace(target)
        return _entry(target, found)

    def _rest(self, key: str, start: int, file: WeightFile) -> Iterator[bytes]:
        """From where the last run broke off; S3 knows no part of no bytes."""
        if start and start == file.size_bytes:
            return iter(())
        return self.read(self.wanted.bucket, key, start)

    def _missing(self, ledger: dict[str, str]) -> list[WeightFile]:
        folder = Path(self.wanted.destination)
        return [f for f in self.wanted.files if not _right(folder / f.path, f, ledger)]

    def _recheck(self, ledger: dict[str, str]) -> dict[str, str]:
        """Files of the right size that nothing is remembered of (an image brought them)."""
        folder = Path(self.wanted.destination)
        entries = {}
        for file in self._missing(ledger):
            path = folder / file.path
            if path.is_file() and path.stat().st_size == file.size_bytes:
                with path.open("rb") as content:
                    found = hashlib.file_digest(content, "sha256").hexdigest()
                if file.sha256 in (None, found):
                    entries[file.path] = _entry(path, found)
        return entries

    def _stale(self) -> list[Path]:
        folder = Path(self.wanted.destination)
        wanted = {folder / f.path for f in self.wanted.files}
        wanted |= {p.with_name(p.name + PARTIAL) for p in wanted}
        return sorted(p for p in folder.rglob("*") if not p.is_dir() and p not in wanted)

    def _guard(self) -> None:
        """This folder is emptied of all else: it must be the model's own, and files inside it."""
        folder = PurePosixPath(self.wanted.destination)
        if not folder.is_absolute() or len(folder.parts) < 4 or ".." in folder.parts:
            raise StepError(f"{folder} is no folder of a model's own (like /var/lib/moe/models/x)")
        for file in self.wanted.files:
            path = PurePosixPath(file.path)
            if path.is_absolute() or ".." in path.parts:
                raise StepError(f"the model's file {file.path!r} lies outside of its folder")

    def _room(self, missing: list[WeightFile]) -> None:
        needed = sum(f.size_bytes for f in missing)
        free = shutil.disk_usage(self.wanted.destination).free
        if needed > free:
            raise StepError(
                f"{needed / 1e9:.1f} GB of weights are missing, {self.wanted.destination} has "
                f"{free / 1e9:.1f} GB free: give the node a larger disk"
            )

    def _ledger(self) -> dict[str, str]:
        try:
            known = json.loads(self.ledger.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _save(self, ledger: dict[str, str]) -> None:
        wanted = {f.path for f in self.wanted.files}
        kept = {path: entry for path, entry in sorted(ledger.items()) if path in wanted}
        durable.write(self.ledger, json.dumps(kept, indent=1).encode())


def _begun(partial: Path) -> tuple[hashlib._Hash, int]:
    """Digest and size of what an earlier run left."""
    if not partial.is_file():
        return hashlib.sha256(), 0
    with partial.open("rb") as content:
        return hashlib.file_digest(content, "sha256"), partial.stat().st_size


def _entry(path: Path, sha256: str) -> str:
    """What is remembered of a checked file."""
    stat = path.stat()
    return f"{sha256} {stat.st_size} {stat.st_mtime_ns}"


def _right(path: Path, file: WeightFile, ledger: dict[str, str]) -> bool:
    remembered = ledger.get(file.path, "")
    sha256 = remembered.partition(" ")[0]
    if not path.is_file() or file.sha256 not in (None, sha256):
        return False
    return path.stat().st_size == file.size_bytes and _entry(path, sha256) == remembered
