"""A folder as the Hub would hold it: a commit, git's id of each file, large files by SHA-256."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGE = (".safetensors", ".bin", ".gguf", ".pt")
"""What the Hub's own .gitattributes puts into large-file storage."""


@dataclass(frozen=True)
class File:
    """One file. sha256: of a large one; blob: git's id of what git holds of it."""

    path: str
    size_bytes: int
    sha256: str | None
    blob: str

    def entry(self) -> dict[str, Any]:
        """As `GET /api/models/…?blobs=true` lists it."""
        listed: dict[str, Any] = {
            "rfilename": self.path,
            "size": self.size_bytes,
            "blobId": self.blob,
        }
        if self.sha256:
            pointer = len(_pointer(self.sha256, self.size_bytes))
            listed["lfs"] = {
                "sha256": self.sha256,
                "size": self.size_bytes,
                "pointerSize": pointer,
            }
        return listed

    def leaf(self) -> dict[str, Any]:
        """As `GET /api/models/…/tree/…?recursive=true` lists it."""
        entry = self.entry()
        leaf = {"type": "file", "oid": self.blob, "size": self.size_bytes, "path": self.path}
        if self.sha256:
            leaf["lfs"] = {**entry["lfs"], "oid": self.sha256}
        return leaf


@dataclass(frozen=True)
class Repository:
    """A folder at the one commit that follows from its content."""

    folder: Path
    commit: str
    files: tuple[File, ...]


def repository(folder: Path) -> Repository:
    """Read a folder; hidden files are left out."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    files = tuple(_file(path, folder) for path in paths)
    text = "".join(f"{f.path}\0{f.blob}\n" for f in files)
    return Repository(folder, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), files)


def _file(path: Path, folder: Path) -> File:
    content = path.read_bytes()
    name = path.relative_to(folder).as_posix()
    if not name.endswith(LARGE):
        return File(name, len(content), None, _blob(content))
    sha256 = hashlib.sha256(content).hexdigest()
    return File(name, len(content), sha256, _blob(_pointer(sha256, len(content))))


def _pointer(sha256: str, size: int) -> bytes:
    """What git holds in the place of a large file."""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return text.encode()


def _blob(content: bytes) -> str:
    head = f"blob {len(content)}\0".encode()
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()
