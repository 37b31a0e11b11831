"""Whether a group that gets no new requests still works for somebody."""

from __future__ import annotations

import http.client
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Container

    from node_bootstrap.assignment import GatewayGroup

LOOKS = 3
"""So often in a row nothing may run: a request may be between router and engine at one look."""
METRICS_SECONDS = 2.0
_BUSY = re.compile(
    r"^vllm:(?:num_requests_running|num_requests_waiting|kv_cache_usage_perc)\{[^}]*\} (\S+)$",
    re.MULTILINE,
)
"""Requests in an engine, and blocks: a prefill group holds those that decode has yet to read."""


def looked(group: GatewayGroup, routed: Container[str], before: int) -> int:
    """How many looks in a row, with this one, found the group out of the router and at rest.

    Args:
        group: asked at each of its APIs.
        routed: groups that requests are sent to at this moment.
        before: looks in a row until now.
    """
    at_rest = group.name not in routed and not any(map(busy_at, group.urls))
    return before + 1 if at_rest else 0


def proven(looks: int) -> bool:
    """Whether so many looks in a row are enough."""
    return looks >= LOOKS


def busy(metrics: str) -> bool:
    """Whether an engine works for somebody, from its `/metrics`; also where that tells nothing."""
    values = [float(value) for value in _BUSY.findall(metrics)]
    return not values or any(values)


def busy_at(url: str) -> bool:
    """Whether the API at an address works for somebody; yes where it can't be asked."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=METRICS_SECONDS)
    try:
        connection.request("GET", "/metrics")
        return busy(connection.getresponse().read().decode(errors="replace"))
    except (OSError, http.client.HTTPException):
        return True
    finally:
        connection.close()
