"""The gateway's words to agents of groups: tell of yourself, try ports, measure, end this life."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any, TypeVar

from node_bootstrap import jsondata
from node_bootstrap.agent.protocol import LeaveOrder, RestartOrder
from node_bootstrap.agent.reach import ReachOrder, ReachReport
from node_bootstrap.agent.server import LEAVE, MEASURE, REACH, RESTART
from node_bootstrap.jsondata import ContractError
from node_bootstrap.status import GroupReport
from node_bootstrap.transfer.pair import MeasureOrder, MeasureReport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T = TypeVar("T")
GROUP = "/v1/group"
TIMEOUT_SECONDS = 2.0
REACH_SECONDS = 15.0


class PeerError(Exception):
    """An agent gave no usable answer: the message says which and why."""


def group_of(host: str, port: int, token: str) -> GroupReport:
    """What a primary tells of its group. PeerError when it tells nothing."""
    return _talk(GroupReport, (host, port, token), GROUP)


def order_restart(host: str, port: int, token: str, order: RestartOrder) -> None:
    """End a life of a primary's group. PeerError when it wasn't taken."""
    _talk(RestartOrder, (host, port, token), RESTART, order)


def order_leave(host: str, port: int, token: str, order: LeaveOrder) -> None:
    """Let a life of a primary's group end. PeerError when it wasn't taken."""
    _talk(LeaveOrder, (host, port, token), LEAVE, order)


def measure(host: str, port: int, token: str, order: MeasureOrder) -> MeasureReport:
    """Have a node take part in a measured transfer. PeerError when it can't be asked."""
    return _talk(MeasureReport, (host, port, token), MEASURE, order, seconds=REACH_SECONDS)


def unreached(
    takers: Mapping[str, str], port: int, token: str, side_channels: Sequence[str]
) -> tuple[str, ...]:
    """Which side channels the nodes of a decode group don't reach, one sentence each.

    Args:
        takers: node -> address, of the decode group.
        port: of their agents.
        token: the stack's.
        side_channels: `address:port` of every rank of the prefill group.
    """
    order, found = ReachOrder(tuple(side_channels)), []
    for node, address in takers.items():
        try:
            report = _talk(ReachReport, (address, port, token), REACH, order, seconds=REACH_SECONDS)
        except PeerError as error:
            found.append(f"{node} can't be asked what it reaches: {error}")
            continue
        found += [
            f"{node} doesn't reach the side channel {target}: {why}"
            for target, why in report.unreached.items()
        ]
    return tuple(found)


def _talk(
    kind: type[T],
    agent: tuple[str, int, str],
    path: str,
    body: Any = None,
    *,
    seconds: float = TIMEOUT_SECONDS,
) -> T:
    """One question to the agent at (address, port) with the stack's token."""
    host, port, token = agent
    method = "GET" if body is None else "POST"
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    try:
        content = None if body is None else jsondata.to_json(body, without_defaults=True).encode()
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        told = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise PeerError(f"{host}:{port}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        text = told[:300].decode(errors="replace").strip()
        raise PeerError(f"{host}:{port}: HTTP {answer.status} {text}")
    try:
        return jsondata.from_json(kind, told)
    except ContractError as error:
        raise PeerError(f"{host}:{port}: {error}") from error
