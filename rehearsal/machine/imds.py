"""The instance metadata service, version 2 only: what it answers, without any socket.

Tokens are made with a key and hold their own limits, so they stay valid when the account's
process starts anew.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

VERSIONS = (
    "1.0",
    "2009-04-04",
    "2016-09-02",
    "2018-09-24",
    "2021-03-23",
    "2024-04-11",
    "latest",
)
TOKEN_PATH = "/latest/api/token"  # noqa: S105 - a path
TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105 - a header's name
MAX_TTL_S = 21600


class Headers(Protocol):
    """A request's headers, looked up without regard to case."""

    def get(self, name: str, /) -> str | None:
        """Return a header's value."""
        ...


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Tokens:
    """Makes and checks session tokens, each bound to the address that asked for it."""

    key: bytes

    def issue(self, address: str, ttl_s: int, now_s: float) -> str:
        """Return a token that is valid for `ttl_s` seconds."""
        claim = f"{int(now_s) + ttl_s}|{address}".encode()
        return urlsafe_b64encode(self._sign(claim) + claim).decode()

    def valid(self, token: str, address: str, now_s: float) -> bool:
        """Whether this address may use this token now."""
        try:
            raw = urlsafe_b64decode(token.encode())
        except (Base64Error, ValueError):
            return False
        signature, claim = raw[:32], raw[32:]
        if not hmac.compare_digest(signature, self._sign(claim)):
            return False
        expiry, _, owner = claim.decode().partition("|")
        return owner == address and now_s < int(expiry)

    def _sign(self, claim: bytes) -> bytes:
        return hmac.digest(self.key, claim, hashlib.sha256)


def answer_put(path: str, headers: Headers, address: str, tokens: Tokens) -> Answer:
    """Answer a PUT: only a token can be had.

    Args:
        path: with or without a query.
        headers: of the request.
        address: of the instance that asks.
        tokens: makes the token.
    """
    if path.partition("?")[0] != TOKEN_PATH:
        return Answer(404)
    # EC2 refuses what came through a proxy: a proxy in an instance would give tokens away.
    if headers.get("X-Forwarded-For") is not None:
        return Answer(403)
    ttl = headers.get(TTL_HEADER) or ""
    if not ttl.isascii() or not ttl.isdigit() or not 1 <= int(ttl) <= MAX_TTL_S:
        return Answer(400)
    token = tokens.issue(address, int(ttl), time.time())
    return Answer(200, token.encode(), headers=((TTL_HEADER, ttl),))


def answer_get(
    path: str,
    headers: Headers,
    address: str,
    tokens: Tokens,
    tree: Mapping[str, Any] | None,
) -> Answer:
    """Answer a GET: 401 without a valid token, 404 for what the instance has not.

    Args:
        path: with or without a query.
        headers: of the request.
        address: of the instance that asks.
        tokens: checks the token.
        tree: the instance's metadata, None where no instance owns the address.
    """
    if tree is None:
        return Answer(404)
    if not tokens.valid(headers.get(TOKEN_HEADER) or "", address, time.time()):
        return Answer(401)
    segments = [part for part in path.partition("?")[0].split("/") if part]
    if not segments:
        return Answer(200, "\n".join(VERSIONS).encode())
    if segments[0] not in VERSIONS:
        return Answer(404)
    return _render(_walk(tree, segments[1:]))


def _walk(tree: Mapping[str, Any], segments: list[str]) -> Any:
    node: Any = tree
    for segment in segments:
        if not isinstance(node, Mapping) or segment not in node:
            return None
        node = node[segment]
    return node() if callable(node) else node


def _render(node: Any) -> Answer:
    if node is None:
        return Answer(404)
    if isinstance(node, Mapping):
        listing = (f"{name}/" if isinstance(node[name], Mapping) else name for name in node)
        return Answer(200, "\n".join(listing).encode())
    if isinstance(node, bytes):
        return Answer(200, node, "application/octet-stream")
    return Answer(200, str(node).encode())
