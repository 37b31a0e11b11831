"""Compiled kernels (DeepGEMM, Triton, FlashInfer, torch.compile): from the bucket, and to it.

All of them lie below one folder, vLLM's cache. Nothing here stops a start: without an entry, or
with a broken one, vLLM compiles by itself.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import shutil
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal, Protocol

from node_bootstrap import durable
from node_bootstrap.assignment import Assignment, KernelCache
from node_bootstrap.places import Places
from node_bootstrap.status import GroupReport, NodePhase
from node_bootstrap.steps.base import Check, Frequency, StepError

log = logging.getLogger(__name__)

SHA256 = "sha256"
UNASKED_SECONDS = 60.0
"""So long a bucket that did not answer is not asked again."""
Found = Literal["fetched", "absent", "broken", "unasked"]
"""unasked: the bucket did not answer, so nobody knows whether there is an entry."""


class Shelf(Protocol):
    """The stack's bucket. All raise StepError."""

    def known(self, key: str) -> tuple[int, Mapping[str, str]] | None:
        """Size and metadata; None where it is missing."""
        ...

    def stream(self, key: str) -> Iterator[bytes]:
        """An object in chunks."""
        ...

    def save_file(
        self, key: str, content: IO[bytes], metadata: Mapping[str, str], *, over: bool
    ) -> bool:
        """Write a file, over another one only if told so; whether it was written."""
        ...


@dataclass(frozen=True)
class State:
    """What became of an entry on this node. saved: nothing is left to do. at: in Unix seconds."""

    key: str
    found: Found
    saved: bool = False
    at: float = 0.0


@dataclass(frozen=True)
class KernelsStep:
    """Fills vLLM's cache from the entry that an earlier group left.

    cache: the folder. scratch: on a disk with room. state: file that remembers what was found.
    now: Unix seconds.
    """

    wanted: KernelCache
    shelf: Shelf
    cache: Path
    scratch: Path
    state: Path
    now: Callable[[], float] = time.time
    name: str = "kernels"
    phase: NodePhase = "weights"
    frequency: Frequency = "change"
    timeout_seconds: float = 900
    needs: tuple[str, ...] = ("hardware",)

    @property
    def key(self) -> str:
        """The entry's."""
        return self.wanted.key

    def check(self) -> Check:
        """Remember; S3 is not asked."""
        state = durable.load(self.state, State)
        if state is None or state.key != self.wanted.key:
            return Check(done=False, detail="compiled kernels were not looked for yet")
        if state.found == "fetched" and not (self.cache.is_dir() and any(self.cache.iterdir())):
            return Check(done=False, detail=f"compiled kernels are gone from {self.cache}")
        if state.found == "unasked" and not 0 <= self.now() - state.at < UNASKED_SECONDS:
            return Check(done=False, detail="compiled kernels could not be looked for")
        words = {
            "fetched": f"compiled kernels of {self.wanted.key} are in {self.cache}",
            "absent": "nobody has left compiled kernels: vLLM compiles them",
            "unasked": "the bucket did not answer for compiled kernels: vLLM compiles them",
            "broken": f"{self.wanted.key} was broken and thrown away: vLLM compiles the kernels",
        }
        return Check(done=True, detail=words[state.found])

    def apply(self, deadline: float) -> None:
        """Fetch, check and unpack; whatever is wrong with the entry ends in `broken`."""
        del deadline
        found: Found = "absent"
        try:
            known = self.shelf.known(self.wanted.key)
            if known is not None:
                found = "fetched" if self._fetch(*known) else "broken"
        except StepError as error:
            log.warning("compiled kernels could not be fetched: %s", error)
            found = "unasked"
        durable.save(self.state, State(self.wanted.key, found, at=self.now()))

    def _fetch(self, size: int, metadata: Mapping[str, str]) -> bool:
        if size > self.wanted.max_bytes:
            log.warning("%s has %d bytes: not taken", self.wanted.key, size)
            return False
        self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="kernels-", dir=self.scratch) as folder:
            packed, fresh = Path(folder, "packed"), Path(folder, "fresh")
            digest = hashlib.sha256()
            with packed.open("wb") as out:
                for chunk in self.shelf.stream(self.wanted.key):
                    digest.update(chunk)
                    out.write(chunk)
            if digest.hexdigest() != metadata.get(SHA256):
                log.warning("%s has another SHA-256 than it was saved with", self.wanted.key)
                return False
            try:
                unpack(packed, fresh, 4 * self.wanted.max_bytes)
            except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
                log.warning("%s can't be unpacked: %s", self.wanted.key, error)
                return False
            self.cache.mkdir(parents=True, exist_ok=True)
            # What vLLM compiled here is newer than what somebody left.
            shutil.copytree(fresh, self.cache, dirs_exist_ok=True, copy_function=_copy_missing)
            # vLLM, which owns the cache where it served before, writes beside what was fetched.
            owner = self.cache.stat()
            for path in fresh.rglob("*"):
                target = self.cache / path.relative_to(fresh)
                os.chown(target, owner.st_uid, owner.st_gid, follow_symlinks=False)
        return True


@dataclass(frozen=True)
class Keeper:
    """Leaves a ready group's kernels for the next one, once."""

    shelf: Shelf
    cache: Path
    scratch: Path
    state: Path

    def keep(self, wanted: KernelCache) -> str:
        """Save what there is, if nobody has; what was done, for the log.

        Raises:
            StepError: the bucket can't be asked or written.
        """
        state = durable.load(self.state, State)
        if state is None or state.key != wanted.key or state.saved:
            return ""
        said = self._save(wanted, over=state.found == "broken")
        durable.save(self.state, replace(state, saved=True))
        return said

    def _save(self, wanted: KernelCache, *, over: bool) -> str:
        if not over and self.shelf.known(wanted.key) is not None:
            return f"{wanted.key} is there already"
        size = sum(p.stat().st_size for p in _files(self.cache))
        if not size or size > wanted.max_bytes:
            return f"{self.cache} has {size} bytes of kernels: not kept"
        self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.scratch) as packed:
            pack(self.cache, packed)
            packed.seek(0)
            digest = hashlib.file_digest(packed, "sha256").hexdigest()
            packed.seek(0)
            if packed.seek(0, os.SEEK_END) > wanted.max_bytes:
                return f"{self.cache} is too large when packed: not kept"
            packed.seek(0)
            saved = self.shelf.save_file(wanted.key, packed, {SHA256: digest}, over=over)
        return f"{size / 1e6:.1f} MB of compiled kernels {'are' if saved else 'were'} kept"


def pack(folder: Path, out: IO[bytes]) -> None:
    """A folder's plain files as a compressed tar: what is half written or a link is left out."""
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for path in _files(folder):
            try:
                entry = archive.gettarinfo(path, path.relative_to(folder).as_posix())
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = ""
                with path.open("rb") as content:
                    archive.addfile(entry, content)
            except FileNotFoundError:  # a lock or a draft of a compiler that went on
                continue


def unpack(packed: Path, folder: Path, max_bytes: int) -> None:
    """The plain files of such a tar, at most so many bytes.

    Raises:
        ValueError: it holds something else, or more.
        tarfile.TarError, OSError, EOFError: it is broken.
    """
    left = max_bytes
    with tarfile.open(packed, mode="r:gz") as archive:
        for member in archive:
            left -= member.size
            if not member.isreg():
                raise ValueError(f"{member.name} is no plain file")
            if left < 0:
                raise ValueError(f"more than {max_bytes} bytes")
            archive.extract(member, folder, filter="data")


def _files(folder: Path) -> list[Path]:
    drafts = (".lock", ".tmp")
    return sorted(
        p
        for p in folder.rglob("*")
        if p.is_file() and not p.is_symlink() and not p.name.endswith(drafts)
    )


def _copy_missing(source: str, target: str) -> None:
    if not Path(target).exists():
        shutil.copy2(source, target)


class AfterReady:
    """Leaves the kernels of this node's group once it is ready, in a thread of its own."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._begun = ""

    def look(self, prepared: Assignment | None, group: GroupReport | None, shelf: Shelf) -> None:
        """Begin if it is time. group: as its primary holds it; None on any other node."""
        wanted = prepared.kernel_cache if prepared else None
        if wanted is None or group is None or group.phase != "ready" or wanted.key == self._begun:
            return
        self._begun = wanted.key
        places = self._places
        keeper = Keeper(shelf, places.cache, places.state / "scratch", places.kernels)
        threading.Thread(target=keep, args=(keeper, wanted), name="kernels", daemon=True).start()


def keep(keeper: Keeper, wanted: KernelCache) -> None:
    """Keep, in a thread of its own: minutes of packing stop no heartbeat, and no fault counts."""
    try:
        said = keeper.keep(wanted)
    except (StepError, OSError) as error:
        said = f"compiled kernels could not be kept: {error}"
    if said:
        log.info("%s", said)
