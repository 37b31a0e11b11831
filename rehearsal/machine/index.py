"""A package index as nodes reach it: PEP 503 and 691 over the wheels of one folder. WSGI.

What it serves can be broken to order (`rehearsal.account.faults`), as downloads are elsewhere.
"""

from __future__ import annotations

import html
import json
import re
import zipfile
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    Breakage = Callable[[str], tuple[str, int] | None]
    """File name -> (`cut-download`, after so many bytes) or (`wrong-file`, 0); None: whole."""

JSON = "application/vnd.pypi.simple.v1+json"
CHUNK_BYTES = 2**20
UNREAD_BYTE = 10
"""Of a zip file: the first entry's time, which nothing that unpacks it looks at."""


class Index:
    """Serves `/simple/`, `/simple/NAME/`, `/files/WHEEL` and `/files/WHEEL.metadata`."""

    def __init__(self, folder: Path, broken: Breakage = lambda _: None) -> None:
        """Serve a folder; it may not change meanwhile."""
        self._folder = folder
        self._broken = broken

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        path = unquote(environ.get("PATH_INFO", ""))
        json_asked = JSON in environ.get("HTTP_ACCEPT", "")
        if found := re.fullmatch(r"/simple/(?:([^/]+)/)?", path):
            return self._page(found[1], start_response, as_json=json_asked)
        if found := re.fullmatch(r"/files/([^/]+\.whl)(\.metadata)?", path):
            wheel = self._folder / found[1]
            if wheel.is_file():
                if found[2]:
                    return _say(start_response, 200, "text/plain", metadata(wheel))
                return self._file(wheel, environ.get("HTTP_RANGE", ""), start_response)
        return _say(start_response, 404, "text/plain", b"There is no such file here.\n")

    def _page(
        self, project: str | None, start_response: StartResponse, *, as_json: bool
    ) -> Iterable[bytes]:
        wheels = sorted(self._folder.glob("*.whl"))
        if project is None:
            names = sorted({project_of(w.name) for w in wheels})
            links = "".join(f'<a href="{name}/">{name}</a><br>\n' for name in names)
            return _say(start_response, 200, "text/html", f"<!doctype html>\n{links}".encode())
        files = [w for w in wheels if project_of(w.name) == normalized(project)]
        if not files:
            return _say(start_response, 404, "text/plain", b"No such project.\n")
        if as_json:
            entries = [
                # Hashes are left to the lock: reading gigabytes to tell them would take minutes.
                {"filename": w.name, "url": f"/files/{w.name}", "hashes": {}, "core-metadata": True}
                for w in files
            ]
            answer = {"meta": {"api-version": "1.0"}, "name": normalized(project), "files": entries}
            return _say(start_response, 200, JSON, json.dumps(answer).encode())
        links = "".join(
            f'<a href="/files/{html.escape(w.name)}">{html.escape(w.name)}</a><br>\n' for w in files
        )
        return _say(start_response, 200, "text/html", f"<!doctype html>\n{links}".encode())

    def _file(self, wheel: Path, asked: str, start_response: StartResponse) -> Iterable[bytes]:
        size = wheel.stat().st_size
        first, last = 0, size - 1
        if found := re.fullmatch(r"bytes=(\d*)-(\d*)", asked):
            if found[1]:
                first, last = int(found[1]), min(last, int(found[2] or last))
            elif found[2]:
                first = max(0, size - int(found[2]))
        if first >= size or first > last:
            headers = [("Content-Range", f"bytes */{size}"), ("Content-Length", "0")]
            start_response("416 Range Not Satisfiable", headers)
            return []
        headers = [
            ("Content-Type", "application/octet-stream"),
            ("Content-Length", str(last - first + 1)),
            ("Accept-Ranges", "bytes"),
        ]
        if (first, last) != (0, size - 1):
            headers.append(("Content-Range", f"bytes {first}-{last}/{size}"))
        status = "206 Partial Content" if len(headers) > 3 else "200 OK"
        start_response(status, headers)
        return content(wheel, first, last - first + 1, self._broken(wheel.name))


def content(
    wheel: Path, first: int, length: int, broken: tuple[str, int] | None
) -> Iterator[bytes]:
    """Bytes of a file; where it is broken, cut short, or another file that is as good a zip."""
    kind, after = broken or ("", 0)
    left = min(length, after) if kind == "cut-download" else length
    with wheel.open("rb") as file:
        file.seek(first)
        if kind == "wrong-file" and first <= UNREAD_BYTE < first + left:
            before = file.read(UNREAD_BYTE - first)
            yield before + bytes([file.read(1)[0] ^ 1])
            left -= len(before) + 1
        while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk
    if kind == "cut-download":
        raise ConnectionAbortedError(f"{wheel.name} is cut: a fault that was asked for")


def normalized(name: str) -> str:
    """A project's name as the index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def project_of(wheel: str) -> str:
    """The project that a wheel's file name states."""
    return normalized(wheel.split("-", 1)[0])


def metadata(wheel: Path) -> bytes:
    """The METADATA of a wheel (PEP 658): an installer need not load the wheel to read it."""
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        return archive.read(min(names, key=len))


def _say(start_response: StartResponse, status: int, kind: str, body: bytes) -> Iterable[bytes]:
    words = {200: "OK", 404: "Not Found"}[status]
    headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    start_response(f"{status} {words}", headers)
    return [body]
