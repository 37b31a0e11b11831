"""Asking every rank: a one-token completion, the only proof that a rank answers.

`/health` stays 200 when a headless node is dead or a collective hangs.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from node_bootstrap.agent import signs
from node_bootstrap.agent.group import Probed
from node_bootstrap.assignment import Api
from node_bootstrap.status import ProbeReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from node_bootstrap.agent.protocol import Pair
    from node_bootstrap.status import EngineMetrics

STARTING_INTERVAL_SECONDS = 0.3
STARTING_TIMEOUT_SECONDS = 30.0
"""The first completion of an engine may compile kernels; the start's own limit bounds it."""
BUSY_SECONDS = 120.0
"""For so long a rank may owe an answer while its engine makes tokens for others."""
PROGRESS_SECONDS = 1.0
"""Over this time an engine under load shows that it makes tokens."""
METRICS_SECONDS = 2.5
"""An API server that is starved of the CPU takes its time for its counters, too."""
TOO_MANY_REQUESTS = 429

_TOKENS = re.compile(
    r'^vllm:generation_tokens_total\{[^}]*engine="(\d+)"[^}]*\} (\S+)$', re.MULTILINE
)


@dataclass(frozen=True)
class Target:
    """Where and how the ranks of one life of the group are asked.

    apis: where there are several; else the one at `host` and `port` has all ranks.
    """

    pair: Pair
    host: str
    port: int
    api_key: str
    model: str
    prompt: str
    ranks: int
    interval_seconds: float
    timeout_seconds: float
    apis: tuple[Api, ...] = ()

    def of(self, rank: int) -> Api:
        """The API that serves a rank."""
        whole = Api(self.host, self.port, 0, self.ranks)
        return next((a for a in self.apis if 0 <= rank - a.first_rank < a.ranks), whole)


def generation_tokens(metrics: str) -> dict[int, float]:
    """Tokens generated so far by rank, from vLLM's `/metrics`."""
    totals: dict[int, float] = {}
    for engine, value in _TOKENS.findall(metrics):
        totals[int(engine)] = totals.get(int(engine), 0.0) + float(value)
    return totals


def complete(target: Target, rank: int, timeout_seconds: float) -> str:
    """The text of a one-token completion of one rank.

    Raises:
        TimeoutError: no answer in time.
        OSError: no connection.
        ProbeError: an answer that is none.
    """
    body = {"model": target.model, "prompt": target.prompt, "max_tokens": 1, "temperature": 0}
    api = target.of(rank)
    local = str(rank - api.first_rank)
    headers = {"Content-Type": "application/json", "X-data-parallel-rank": local}
    if target.api_key:
        headers["Authorization"] = f"Bearer {target.api_key}"
    connection = http.client.HTTPConnection(api.address, api.port, timeout=timeout_seconds)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
    except http.client.HTTPException as error:
        raise ProbeError(0, f"broken answer: {error!r}") from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise ProbeError(answer.status, content[:300].decode(errors="replace"))
    try:
        return str(json.loads(content)["choices"][0]["text"])
    except (ValueError, LookupError, TypeError) as error:
        raise ProbeError(answer.status, f"no completion: {content[:300]!r}") from error


class ProbeError(Exception):
    """The engine answered, but not with a completion. status: HTTP's, 0 when it broke off."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}" if status else message)
        self.status = status


class Prober:
    """Asks all ranks of one life of the group, side by side, until it is stopped."""

    def __init__(
        self, target: Target, tell: Callable[[Probed], None], ready: Callable[[], bool]
    ) -> None:
        """Begin at once; `tell` takes each result, from threads; `ready`: the group is ready."""
        self.target = target
        self._tell = tell
        self._ready = ready
        self._pages: dict[Api, EngineMetrics] = {}
        self._end = threading.Event()
        for rank in range(target.ranks):
            threading.Thread(
                target=self._watch, args=(rank,), name=f"probe-{rank}", daemon=True
            ).start()

    def stop(self) -> None:
        """Ask no more; what is under way is no longer told."""
        self._end.set()

    def metrics(self) -> EngineMetrics | None:
        """What the engines' `/metrics` said when a rank last owed an answer."""
        return signs.together(dict(self._pages).values())

    def _watch(self, rank: int) -> None:
        answered_at = time.monotonic()
        while not self._end.is_set():
            ready = self._ready()
            result, busy = self._ask(rank, ready=ready)
            if result.report is not None:
                answered_at = time.monotonic()
            late = time.monotonic() - answered_at > BUSY_SECONDS
            excused = busy and ready and not late and self._progresses(rank)
            if not excused and not self._end.is_set():
                self._tell(result)
            waiting = result.report is None and not ready
            self._end.wait(STARTING_INTERVAL_SECONDS if waiting else self.target.interval_seconds)

    def _progresses(self, rank: int) -> bool:
        """Whether this rank's engine makes tokens at this moment."""
        before = self._tokens(rank)
        if before is None:
            return False
        self._end.wait(PROGRESS_SECONDS)
        after = self._tokens(rank)
        return after is not None and after > before

    def _ask(self, rank: int, *, ready: bool) -> tuple[Probed, bool]:
        """One question; and whether the failure may be the fault of load alone."""
        target = self.target
        limit = target.timeout_seconds
        limit = limit if ready else max(limit, STARTING_TIMEOUT_SECONDS)
        began = time.monotonic()
        try:
            text = complete(target, rank, limit)
        except TimeoutError:
            error = f"no answer within {limit:g} s"
            return Probed(target.pair, rank, None, error), True
        except ProbeError as error:
            return Probed(target.pair, rank, None, str(error)), error.status == TOO_MANY_REQUESTS
        except OSError as error:
            return Probed(target.pair, rank, None, str(error)), False
        seconds = round(time.monotonic() - began, 4)
        return Probed(target.pair, rank, ProbeReport(rank, text, seconds, time.time())), False

    def _tokens(self, rank: int) -> float | None:
        """Tokens that this rank's engine has made; None when it doesn't say."""
        api = self.target.of(rank)
        connection = http.client.HTTPConnection(api.address, api.port, timeout=METRICS_SECONDS)
        try:
            connection.request("GET", "/metrics")
            content = connection.getresponse().read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        self._pages[api] = signs.metrics(content, time.time())
        return generation_tokens(content).get(rank)
