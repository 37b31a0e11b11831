"""uv, the installer of Python environments: one pinned wheel from the node's package index.

A bare node has Python and neither pip nor uv. Fetching one wheel by the index's own protocol
(PEP 503 and 691) takes no more than the standard library.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import platform
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node_bootstrap.steps.base import StepError

VERSION = "0.13.9"
PYPI = "https://pypi.org/simple"
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
"""Which may name the node's package index, first one first."""
TIMEOUT_SECONDS = 30
CHUNK_BYTES = 2**20
ATTEMPTS = 3


@dataclass(frozen=True)
class Wheel:
    """One file of the index."""

    file: str
    sha256: str


WHEELS = {
    "x86_64": Wheel(
        f"uv-{VERSION}-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    ),
    "aarch64": Wheel(
        f"uv-{VERSION}-py3-none-manylinux_2_28_aarch64.whl",
        "ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375",
    ),
}


def index_of(env: Mapping[str, str]) -> str:
    """Address of the package index that an environment names."""
    named = (env.get(name, "").strip() for name in INDEX_VARIABLES)
    return next(filter(None, named), PYPI).rstrip("/")


def shown(address: str) -> str:
    """An address without the secret that may be in it."""
    return re.sub(r"//[^/@]*@", "//", address)


def bring(folder: Path, env: Mapping[str, str] = os.environ) -> Path:
    """Return uv's program in the folder; fetched where it is missing.

    Raises:
        StepError: the index can't be reached, has no such file, or serves another one.
    """
    program = folder / f"uv-{VERSION}" / "uv"
    if program.is_file():
        return program
    wheel = WHEELS.get(platform.machine())
    if wheel is None:
        raise StepError(f"there is no uv for {platform.machine()}: use a runtime in an image")
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / wheel.file
    _fetch(index_of(env), wheel, archive)
    made = program.parent.with_name(program.parent.name + ".new")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    with zipfile.ZipFile(archive) as content:
        data = content.read(f"uv-{VERSION}.data/scripts/uv")
    (made / "uv").write_bytes(data)
    (made / "uv").chmod(0o755)
    made.rename(program.parent)
    archive.unlink()
    return program


def _fetch(index: str, wheel: Wheel, target: Path) -> None:
    """Get the wheel; a cut download goes on where it ended."""
    part = target.with_name(target.name + ".part")
    try:
        url, headers = _locate(index, wheel)
        for attempt in range(ATTEMPTS):
            try:
                _download(url, headers, part)
                break
            except (ConnectionError, TimeoutError, http.client.IncompleteRead):
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(1)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        reason = getattr(error, "reason", "") or error
        raise StepError(
            f"uv {VERSION} can't be fetched from the package index {shown(index)}: {reason}. The "
            f"node needs a way to it; another index is named by {INDEX_VARIABLES[0]}"
        ) from error
    with part.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != wheel.sha256:
        part.unlink()
        raise StepError(
            f"{wheel.file} of {shown(index)} has SHA-256 {found}, pinned is {wheel.sha256}: it is "
            "not the file that was pinned"
        )
    part.rename(target)


def _locate(index: str, wheel: Wheel) -> tuple[str, dict[str, str]]:
    """The wheel's address, and the headers that it is asked for with."""
    login = _login(index)
    accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"
    with _open(f"{shown(index)}/uv/", {"Accept": accept, **login}) as answer:
        body, kind = answer.read().decode(), answer.headers.get_content_type()
        base = answer.url
    if kind.endswith("json"):
        found = [f["url"] for f in json.loads(body)["files"] if f["filename"] == wheel.file]
    else:
        links = re.findall(r'href="([^"]+)"', body)
        found = [x for x in links if urllib.parse.urlsplit(x).path.endswith("/" + wheel.file)]
    if not found:
        raise StepError(f"the package index {shown(index)} has no {wheel.file}")
    url = urllib.parse.urljoin(base, found[0].replace("&amp;", "&"))
    # The files of an index may lie elsewhere: that host is told no password.
    same = urllib.parse.urlsplit(url).netloc == urllib.parse.urlsplit(shown(index)).netloc
    return url, login if same else {}


def _login(index: str) -> dict[str, str]:
    """The header that says the name and password of an address; urllib reads them from none."""
    parts = urllib.parse.urlsplit(index)
    if parts.username is None:
        return {}
    pair = f"{parts.username}:{parts.password or ''}"
    plain = urllib.parse.unquote(pair).encode()
    return {"Authorization": f"Basic {base64.b64encode(plain).decode()}"}


def _download(url: str, login: dict[str, str], part: Path) -> None:
    begin = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={begin}-"} if begin else {}
    try:
        answer = _open(url, headers | login)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is left to fetch: the digest tells what this is
        raise
    with (
        answer,
        part.open("ab" if answer.status == http.HTTPStatus.PARTIAL_CONTENT else "wb") as to,
    ):
        expected = int(answer.headers.get("Content-Length") or 0)
        got = 0
        while chunk := answer.read(CHUNK_BYTES):
            to.write(chunk)
            got += len(chunk)
    if expected and got < expected:
        raise ConnectionError(f"{got} of {expected} bytes came")


def _open(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    if not url.startswith(("http://", "https://")):
        raise StepError(f"{shown(url)} is no address of a package index")
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - checked above
    return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310 - checked above
