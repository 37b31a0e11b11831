"""The agent as a client of its own gateway: a completion through front, desk, router and engine."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path

from node_bootstrap.assignment import Gateway


@dataclass(frozen=True)
class Way:
    """How to get in. address: of the gateway; key: of the agent's own."""

    address: str
    port: int
    authority: Path | None
    key: str
    model: str
    timeout_seconds: float


def way(gateway: Gateway, address: str, authority: Path, key: str, model: str) -> Way:
    """The way of a gateway, as its clients take it."""
    tls = gateway.tls
    internal = tls is not None and tls.issuer == "internal"
    return Way(address, gateway.port, authority if internal else None, key, model, 10.0)


def ask(way: Way, *, tls: bool) -> str:
    """One token. Why there was none; empty when it came."""
    try:
        connection = _connection(way, tls=tls)
    except OSError as error:
        return f"the authority's certificate can't be read yet: {error}"
    body = {"model": way.model, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
    headers = {"Authorization": f"Bearer {way.key}", "Content-Type": "application/json"}
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"the front at port {way.port} broke off: {error or type(error).__name__}"
    finally:
        connection.close()
    if answer.status != http.client.OK:
        return f"a completion through the front: HTTP {answer.status} {content[:300]}"
    try:
        json.loads(content)["choices"][0]["text"]
    except (ValueError, LookupError, TypeError):
        return f"a completion through the front: no completion in {content[:300]}"
    return ""


def _connection(way: Way, *, tls: bool) -> http.client.HTTPConnection:
    if not tls:
        return http.client.HTTPConnection(way.address, way.port, timeout=way.timeout_seconds)
    context = ssl.create_default_context(cafile=str(way.authority) if way.authority else None)
    return http.client.HTTPSConnection(
        way.address, way.port, timeout=way.timeout_seconds, context=context
    )


def put(address: tuple[str, int], path: str, *, timeout_seconds: float = 2.0) -> str:
    """POST to a router's own API; why it failed, empty when it did not."""
    connection = http.client.HTTPConnection(*address, timeout=timeout_seconds)
    try:
        connection.request("POST", path)
        answer = connection.getresponse()
        content = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
    return "" if answer.status == http.client.OK else f"HTTP {answer.status} {content[:200]}"


def ready(address: tuple[str, int], path: str = "/readiness") -> bool:
    """Whether a router takes requests."""
    connection = http.client.HTTPConnection(*address, timeout=1.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
