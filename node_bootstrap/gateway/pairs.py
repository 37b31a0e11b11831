"""Keeps the proofs of all pairs: tries them, remembers, has decode groups start anew.

Whatever waits for the network works in threads of its own; `tick` never does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from node_bootstrap import durable
from node_bootstrap.agent.protocol import RestartOrder
from node_bootstrap.agent.reach import side_channels
from node_bootstrap.gateway import membership as rules
from node_bootstrap.gateway import pair_transfer, peers
from node_bootstrap.gateway.membership import GroupView, Life, Membership, Proof, Restart
from node_bootstrap.gateway.pair_probe import PairReport, Question, Side, combinations, probe_pair
from node_bootstrap.status import PairReport as ReportedPair
from node_bootstrap.status import TransferReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from node_bootstrap.assignment import GatewayGroup, Member
    from node_bootstrap.transfer.pair import MeasureOrder, MeasureReport

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Pairs under trial; a group is in one of them at a time."""
ORDER_AGAIN_SECONDS = 5.0
REPEATED_TOKENS = 4
"""A pair that serves is tried again with one short completion, so that it goes on serving."""


@dataclass(frozen=True)
class Access:
    """How groups and their agents are spoken to. token, api_key: as known at that moment."""

    model: str
    agent_port: int
    token: Callable[[], str]
    api_key: Callable[[], str]


@dataclass(frozen=True)
class Kept:
    """What outlives the agent: without it, a decode group might meet a second life unnoticed."""

    proofs: tuple[Proof, ...]
    transfers: tuple[pair_transfer.Kept, ...] = ()


class Pairs:
    """See the module."""

    def __init__(
        self,
        groups: Sequence[GatewayGroup],
        access: Access,
        path: Path,
        tell: Callable[[], None],
    ) -> None:
        """Take up the proofs that were kept.

        Args:
            groups: of the stack.
            access: how they are spoken to.
            path: file that keeps the proofs.
            tell: called from any thread when a trial has ended.
        """
        self._groups = {group.name: group for group in groups}
        self._access = access
        self._path = path
        self._tell = tell
        self._lock = threading.Lock()
        self._under_way: set[tuple[str, str]] = set()
        self._ordered: dict[tuple[str, Life], float] = {}
        self._reports: dict[tuple[str, str], ReportedPair] = {}
        self._turns: Counter[tuple[str, str]] = Counter()
        self._closed = False
        kept, now = durable.load(path, Kept), time.monotonic()
        # After a boot the clock begins anew: nothing may seem to lie in the future.
        self._proofs = {
            (proof.prefill, proof.decode): replace(proof, at=min(proof.at, now))
            for proof in (kept.proofs if kept else ())
            if proof.prefill in self._groups and proof.decode in self._groups
        }
        self._transfers = {(k.prefill, k.decode): k for k in (kept.transfers if kept else ())}

    def tick(
        self, views: Sequence[GroupView], current: Membership | None, silence_seconds: float
    ) -> Membership:
        """Decide what the router is given; begin what is due. Called about once a second."""
        now, proofs = time.monotonic(), self.proofs()
        decided = rules.decide(views, proofs, now, silence_seconds, current)
        for restart in rules.restarts_due(views, proofs, decided, now, silence_seconds):
            self._order(restart, now)
        lives = {group.name: group.life for group in views}
        for pair in rules.to_probe(views, proofs, now, silence_seconds):
            self._begin(pair, lives, proofs.get(pair))
        return decided

    def proofs(self) -> Mapping[tuple[str, str], Proof]:
        """The last trial of each pair, for who decides."""
        with self._lock:
            return dict(self._proofs)

    def reports(self) -> tuple[ReportedPair, ...]:
        """The last trial of each pair, for the status."""
        with self._lock:
            return tuple(self._reports[pair] for pair in sorted(self._reports))

    def close(self) -> None:
        """Begin nothing more; what is under way is no longer kept."""
        with self._lock:
            self._closed = True

    def _begin(
        self, pair: tuple[str, str], lives: dict[str, Life | None], known: Proof | None
    ) -> None:
        prefill, decode = lives[pair[0]], lives[pair[1]]
        with self._lock:
            busy = {name for under_way in self._under_way for name in under_way}
            full = self._closed or len(self._under_way) >= AT_ONCE
            if full or busy & set(pair) or not prefill or not decode:
                return
            self._under_way.add(pair)
        begun = Proof(*pair, prefill, decode, "", 0.0)
        threading.Thread(
            target=self._try, args=(pair, begun, known), name="pair-probe", daemon=True
        ).start()

    def _try(self, pair: tuple[str, str], begun: Proof, known: Proof | None) -> None:
        try:
            repeated = known is not None and known.ok and _same_lives(known, begun)
            measured = self._measure(pair, repeated=repeated)
            refused = pair_transfer.reason(measured)
            report = self._probe(pair, repeated=repeated) if not refused else _untried(pair)
            reason = refused or report.reason
            if report.reason and not report.wrong_answer:
                reason = "; ".join((reason, *self._unreached(pair)))
            excused = repeated and report.loaded and not refused
            proof = replace(begun, reason="" if excused else reason, at=time.monotonic())
            self._keep(pair, proof, _reported(report, proof, measured))
        except Exception:  # a trial that ends without a word would never be made again
            log.exception("the trial of %s with %s broke off", *pair)
        finally:
            with self._lock:
                self._under_way.discard(pair)
            self._tell()

    def _measure(self, pair: tuple[str, str], *, repeated: bool) -> TransferReport | None:
        """What is known, or is measured now; one that serves is measured again for new floors."""
        prefill, decode = (self._groups[name] for name in pair)
        if decode.transfer is None:
            return None
        subject = pair_transfer.subject(decode.transfer)
        with self._lock:
            known = self._transfers.get(pair)
        if repeated and known and known.subject == subject:
            return known.report

        def ask(end: Member, order: MeasureOrder) -> MeasureReport:
            return peers.measure(end.address, self._access.agent_port, self._access.token(), order)

        found = pair_transfer.measure(prefill, decode, ask, known.report if known else None)
        if found is not None:
            with self._lock:
                self._transfers[pair] = pair_transfer.Kept(*pair, subject, found)
        return found

    def _probe(self, pair: tuple[str, str], *, repeated: bool) -> PairReport:
        prefill, decode = (self._side(name) for name in pair)
        question = Question(self._access.model)
        if not repeated:
            return probe_pair(prefill, decode, question)
        every = combinations(prefill.ranks, decode.ranks)
        self._turns[pair] += 1  # one thread at a time tries a pair
        ranks = (every[self._turns[pair] % len(every)],)
        short = replace(question, max_tokens=REPEATED_TOKENS, timeout_seconds=10.0)
        report = probe_pair(prefill, decode, short, ranks)
        if report.ok or report.wrong_answer or report.loaded:
            return report
        # Out of use and perhaps anew, for one lost answer under load: only if it is lost again.
        return probe_pair(prefill, decode, short, ranks)

    def _side(self, name: str) -> Side:
        group = self._groups[name]
        host, _, port = group.urls[0].removeprefix("http://").rpartition(":")
        return Side(name, host, int(port), group.ranks, self._access.api_key())

    def _unreached(self, pair: tuple[str, str]) -> tuple[str, ...]:
        """Which side channels of prefill the nodes of decode don't reach: often the reason."""
        prefill, decode = (self._groups[name] for name in pair)
        if prefill.kv_transfer is None:
            return ()
        givers = [(m.address, m.first_rank, m.ranks) for m in prefill.members]
        return peers.unreached(
            {m.name: m.address for m in decode.members},
            self._access.agent_port,
            self._access.token(),
            side_channels(givers, prefill.kv_transfer.side_channel_port),
        )

    def _keep(self, pair: tuple[str, str], proof: Proof, report: ReportedPair) -> None:
        with self._lock:
            if self._closed:
                return
            before = self._proofs.get(pair)
            self._proofs[pair] = proof
            self._reports[pair] = counted(report, self._reports.get(pair))
            kept = Kept(tuple(self._proofs.values()), tuple(self._transfers.values()))
            durable.save(self._path, kept)
        if before is None or before.reason != proof.reason:
            log.info("%s with %s: %s", *pair, proof.reason or "KV moves, the answer is right")

    def _order(self, restart: Restart, now: float) -> None:
        which = (restart.decode, restart.life)
        if now - self._ordered.get(which, -ORDER_AGAIN_SECONDS) < ORDER_AGAIN_SECONDS:
            return
        self._ordered[which] = now
        log.warning("%s must start anew: %s", restart.decode, restart.cause)
        threading.Thread(
            target=self._send_order, args=(restart,), name="restart-order", daemon=True
        ).start()

    def _send_order(self, restart: Restart) -> None:
        primary = self._groups[restart.decode].members[0]
        order = RestartOrder(restart.life.revision, restart.life.generation, restart.cause)
        try:
            peers.order_restart(
                primary.address, self._access.agent_port, self._access.token(), order
            )
        except peers.PeerError as error:
            log.warning("%s did not take its restart: %s", restart.decode, error)


def _same_lives(one: Proof, other: Proof) -> bool:
    return (one.prefill_life, one.decode_life) == (other.prefill_life, other.decode_life)


def _untried(pair: tuple[str, str]) -> PairReport:
    """No completion was sent through it."""
    return PairReport(*pair, ok=False, reason="", seconds=0.0, at=time.time())


def _reported(report: PairReport, proof: Proof, measured: TransferReport | None) -> ReportedPair:
    return ReportedPair(
        prefill=_named(report.prefill, proof.prefill_life),
        decode=_named(report.decode, proof.decode_life),
        ok=proof.ok,
        reason=proof.reason,
        seconds=report.seconds,
        bytes_moved=report.bytes_moved,
        external_hits=report.cached_tokens,
        failed_transfers=report.failed_transfers,
        at=report.at,
        transfer=measured,
    )


def counted(report: ReportedPair, last: ReportedPair | None) -> ReportedPair:
    """With its failures in a row: those of the last report of the same lives, and its own."""
    if report.ok:
        return report
    lives = (report.prefill, report.decode)
    before = last.failures if last and (last.prefill, last.decode) == lives else 0
    return replace(report, failures=before + 1)


def _named(group: str, life: Life) -> str:
    return f"{group} {life.revision}/{life.generation}"


def why_out(name: str, reasons: Iterable[str]) -> str:
    """Those of a membership's reasons that are about a group, in one line."""
    return "; ".join(
        r for r in reasons if r.startswith((f"{name}:", f"{name} with")) or (f" with {name}:" in r)
    )
