"""The Hub's HTTP API as far as downloading needs it, as a WSGI application.

Answers as huggingface.co does: the listing of a commit; `resolve` with X-Repo-Commit, X-Linked-Size
and X-Linked-Etag, which leads large files to another address and small ones to a cache; parts of
files by Range; 401 for what needs a token.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from rehearsal.hub.repository import File, Repository, repository

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PREFIX = "/_hub"
"""Path of the Hub on the account's address: a node's HF_ENDPOINT ends with it."""
CHUNK_BYTES = 2**16
_API = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?")
_TREE = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
_RESOLVE = re.compile(r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_CACHE = re.compile(
    r"/api/resolve-cache/models/(?P<name>[^/]+/[^/]+)/(?P<revision>[^/]+)/(?P<path>.+)"
)
_LARGE = re.compile(r"/cdn/(?P<name>[^/]+/[^/]+)/(?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True)
class HubFault:
    """What goes wrong with the next `calls` answers that have content of a file.

    cut_after: bytes after which the connection ends; None: it doesn't. damaged: one byte is another
    one. status: the answer is this error instead.
    """

    path: str
    calls: int = 1
    cut_after: int | None = None
    damaged: bool = False
    status: int = 0


@dataclass(frozen=True)
class Served:
    """A folder that is served as a repository. token: without it nobody reads; empty: all do."""

    repository: str
    folder: str
    token: str = ""


@dataclass(frozen=True)
class Asked:
    """One request that was answered."""

    path: str
    range: str
    status: int
    with_token: bool


class Hub:
    """Repositories, faults to come, and what was asked."""

    def __init__(self, served: Iterable[Served] = (), cdn: str = "") -> None:
        """cdn: scheme and host that large files are sent to; empty: this one."""
        self._lock = threading.Lock()
        self._cdn = cdn
        self._served: dict[str, tuple[Served, Repository]] = {}
        self._faults: list[HubFault] = []
        self._asked: list[Asked] = []
        self.serve(served)

    def serve(self, served: Iterable[Served], faults: Iterable[HubFault] = ()) -> None:
        """Serve these and no others from now on; OSError where a folder can't be read."""
        read = {one.repository: (one, repository(Path(one.folder))) for one in served}
        with self._lock:
            self._served, self._faults = read, list(faults)

    def told(self) -> dict[str, Any]:
        """All of it, for a control path."""
        with self._lock:
            return {
                "repositories": [
                    {**asdict(one), "token": bool(one.token), "commit": held.commit}
                    for one, held in self._served.values()
                ],
                "faults": [asdict(fault) for fault in self._faults],
                "asked": [asdict(asked) for asked in self._asked],
            }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request; its path is that below the Hub's own address."""
        path = unquote(environ.get("PATH_INFO", ""))
        answer = self._answer(path, environ)
        with self._lock:
            self._asked.append(
                Asked(
                    path,
                    environ.get("HTTP_RANGE", ""),
                    answer.status,
                    "HTTP_AUTHORIZATION" in environ,
                )
            )
        start_response(f"{answer.status} {answer.reason}", list(answer.headers.items()))
        return () if environ.get("REQUEST_METHOD") == "HEAD" else answer.body()

    def _answer(self, path: str, environ: WSGIEnvironment) -> _Answer:
        if (found := _LARGE.fullmatch(path)) is not None:
            return self._large(found["name"], found["sha256"], environ)
        replies = (
            (_CACHE, self._small),
            (_API, self._list),
            (_TREE, self._tree),
            (_RESOLVE, self._leads),
        )
        for pattern, reply in replies:
            if (found := pattern.fullmatch(path)) is not None:
                return self._open(found.groupdict(), environ, reply)
        return _error(404, "EntryNotFound")

    def _open(self, asked: dict[str, str | None], environ: WSGIEnvironment, reply: Any) -> _Answer:
        one = self._served.get(asked["name"] or "")
        if one is None or (one[0].token and not _bears(environ, one[0].token)):
            # The Hub doesn't tell the unknown from the private.
            return _error(401, "RepoNotFound" if one is None else "GatedRepo")
        held = one[1]
        if asked["revision"] not in (None, "main", held.commit):
            return _error(404, "RevisionNotFound")
        if asked.get("path") is None:
            return reply(asked["name"], held)
        file = next((f for f in held.files if f.path == asked["path"]), None)
        if file is None:
            return _error(404, "EntryNotFound")
        return reply(asked["name"], held, file, environ)

    def _list(self, name: str, held: Repository) -> _Answer:
        listed = {"id": name, "sha": held.commit, "siblings": [f.entry() for f in held.files]}
        return _Answer(200, {"Content-Type": "application/json"}, json.dumps(listed).encode())

    def _tree(self, _: str, held: Repository) -> _Answer:
        listed = json.dumps([f.leaf() for f in held.files])
        return _Answer(200, {"Content-Type": "application/json"}, listed.encode())

    def _leads(self, name: str, held: Repository, file: File, environ: WSGIEnvironment) -> _Answer:
        if (fault := self._fault(file, with_status=True)) is not None:
            return _error(fault.status, "Busy")
        base = environ.get("SCRIPT_NAME", "")
        headers = {"X-Repo-Commit": held.commit, "Accept-Ranges": "bytes"}
        if file.sha256 is None:
            where = f"/api/resolve-cache/models/{name}/{held.commit}/{quote(file.path)}"
            headers |= {"Location": base + where, "ETag": f'"{file.blob}"'}
            return _Answer(307, headers, b"")
        host = self._cdn or f"http://{environ['HTTP_HOST']}{base}"
        headers |= {
            "Location": f"{host}/cdn/{name}/{file.sha256}",
            "X-Linked-Size": str(file.size_bytes),
            "X-Linked-Etag": f'"{file.sha256}"',
        }
        return _Answer(302, headers, b"")

    def _small(self, _: str, held: Repository, file: File, environ: WSGIEnvironment) -> _Answer:
        etag = {"ETag": f'"{file.blob}"', "X-Repo-Commit": held.commit}
        return self._content(held, file, environ, etag)

    def _large(self, name: str, sha256: str, environ: WSGIEnvironment) -> _Answer:
        one = self._served.get(name)
        file = next((f for f in one[1].files if f.sha256 == sha256), None) if one else None
        if one is None or file is None:
            return _error(403, "AccessDenied")
        # The real one is another host, whose answers the Hub's library needs no commit of.
        headers = {"ETag": f'"{sha256}"', "X-Repo-Commit": one[1].commit}
        return self._content(one[1], file, environ, headers)

    def _content(
        self, held: Repository, file: File, environ: WSGIEnvironment, headers: dict[str, str]
    ) -> _Answer:
        content = bytearray((held.folder / file.path).read_bytes())
        fault = self._fault(file, with_status=False)
        if fault is not None and fault.damaged:
            content[len(content) // 2] ^= 0xFF
        start = _start(environ.get("HTTP_RANGE", ""))
        status = 200 if start is None else 206
        if start is not None and start >= len(content):
            return _error(416, "InvalidRange")
        body = bytes(content[start or 0 :])
        headers |= {"Accept-Ranges": "bytes", "Content-Length": str(len(body))}
        if start is not None:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return _Answer(status, headers, body, fault.cut_after if fault else None)

    def _fault(self, file: File, *, with_status: bool) -> HubFault | None:
        with self._lock:
            for position, fault in enumerate(self._faults):
                if fault.path == file.path and bool(fault.status) == with_status:
                    left = replace(fault, calls=fault.calls - 1)
                    self._faults[position : position + 1] = [left] if left.calls else []
                    return fault
        return None


class _Answer:
    """One answer. cut: bytes after which the connection ends, short of what was announced."""

    def __init__(
        self, status: int, headers: dict[str, str], content: bytes, cut: int | None = None
    ) -> None:
        self.status, self._content, self._cut = status, content, cut
        self.reason = {200: "OK", 206: "Partial Content"}.get(status, "Answer")
        self.headers = {"Content-Length": str(len(content)), **headers}

    def body(self) -> Iterator[bytes]:
        """The content, as far as it comes."""
        end = len(self._content) if self._cut is None else min(self._cut, len(self._content))
        for start in range(0, end, CHUNK_BYTES):
            yield self._content[start : min(end, start + CHUNK_BYTES)]


def _error(status: int, code: str) -> _Answer:
    return _Answer(status, {"X-Error-Code": code, "Content-Type": "text/plain"}, code.encode())


def _bears(environ: WSGIEnvironment, token: str) -> bool:
    return environ.get("HTTP_AUTHORIZATION", "") == f"Bearer {token}"


def _start(given: str) -> int | None:
    """First byte of `bytes=N-`, the one form that downloads use."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", given)
    return int(found[1]) if found else None
