"""Which groups the router is given: pure, no clock, no network, no process.

A prefill and a decode group enter only together, once a whole completion went through that pair in
their present lives. The router pairs any prefill with any decode group, so what it is given is a
set in which every pair is proven.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from node_bootstrap.agent.protocol import Pair as Life

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from node_bootstrap.status import GroupReport

RETRY_SECONDS = 5.0
"""Between two tries of a pair that failed."""
REPEAT_SECONDS = 10.0
"""A pair that is proven is tried again so often: links and peers rot."""
SEARCHED = 12
"""Of so many groups on the smaller side every subset is looked at; of more, the best few drop."""

Role = Literal["serve", "prefill", "decode"]


@dataclass(frozen=True)
class GroupView:
    """A group as the gateway last heard of it.

    life: what its primary runs; None while it was never heard. fault: why it can't be used, one
    sentence; empty where every rank answers. restart_with_peer: a decode group that must not meet
    a second life of a prefill group. heard_at: monotonic seconds of this gateway.
    wants: the revision that it is prepared for and waits for leave to take up.
    begun_at: when this life was begun, in seconds since the epoch as its primary counts them.
    answered: whether its agent did when it was asked last.
    """

    name: str
    role: Role
    life: Life | None
    fault: str
    heard_at: float
    restart_with_peer: bool = False
    wants: str = ""
    begun_at: float = 0.0
    answered: bool = True


@dataclass(frozen=True)
class Proof:
    """The last try of a pair, in these lives of both. at: monotonic seconds of this gateway."""

    prefill: str
    decode: str
    prefill_life: Life
    decode_life: Life
    reason: str
    at: float

    @property
    def ok(self) -> bool:
        """Whether KV moved and the answer was right."""
        return not self.reason


@dataclass(frozen=True)
class Membership:
    """What the router is given, and why not the rest: one sentence each."""

    serve: tuple[str, ...] = ()
    prefill: tuple[str, ...] = ()
    decode: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def serving(self) -> bool:
        """Whether a request can be answered."""
        return bool(self.serve or (self.prefill and self.decode))


@dataclass(frozen=True)
class Restart:
    """A decode group that must start anew: the life that must end, and why."""

    decode: str
    life: Life
    cause: str


def view(
    name: str, role: Role, report: GroupReport, heard_at: float, *, restart_with_peer: bool = False
) -> GroupView:
    """A group from what its primary's agent answered."""
    life = Life(report.revision, report.generation)
    faults = [f"its own node: {report.kv_fault}"] if report.kv_fault else []
    faults += [f"{m.name}: {m.kv_fault}" for m in report.members if m.kv_fault]
    if report.phase != "ready":
        faults.insert(0, f"{report.phase}, generation {report.generation}")
    fault = "; ".join(faults)
    begun_at = report.restarts[-1].noticed_at if report.restarts else 0.0
    return GroupView(name, role, life, fault, heard_at, restart_with_peer, report.wants, begun_at)


def decide(
    views: Iterable[GroupView],
    proofs: Mapping[tuple[str, str], Proof],
    now: float,
    silence_seconds: float,
    current: Membership | None = None,
) -> Membership:
    """Choose what the router is given.

    Args:
        views: every group of the stack.
        proofs: (prefill, decode) -> the last try of that pair.
        now: monotonic seconds.
        silence_seconds: a group not heard of for so long is out.
        current: what the router has; of equally good choices it is kept.
    """
    reasons = []
    alive: dict[Role, list[GroupView]] = {"serve": [], "prefill": [], "decode": []}
    for group in views:
        if why := unusable(group, now, silence_seconds) or _suspected(group, proofs):
            reasons.append(f"{group.name}: {why}")
        else:
            alive[group.role].append(group)
    good = {
        (p.name, d.name)
        for p in alive["prefill"]
        for d in alive["decode"]
        if not (why := _unproven(p, d, proofs)) or reasons.append(f"{p.name} with {d.name}: {why}")
    }
    prefill, decode = _largest(
        [p.name for p in alive["prefill"]], [d.name for d in alive["decode"]], good, current
    )
    return Membership(
        serve=tuple(sorted(g.name for g in alive["serve"])),
        prefill=prefill,
        decode=decode,
        reasons=tuple(reasons),
    )


def to_probe(
    views: Iterable[GroupView],
    proofs: Mapping[tuple[str, str], Proof],
    now: float,
    silence_seconds: float,
) -> tuple[tuple[str, str], ...]:
    """Pairs to try now, the most urgent first: never tried, failed a while ago, proven long ago."""
    usable = [g for g in views if not unusable(g, now, silence_seconds)]
    due: list[tuple[int, float, tuple[str, str]]] = []
    for prefill in (g for g in usable if g.role == "prefill"):
        for decode in (g for g in usable if g.role == "decode"):
            proof = proofs.get((prefill.name, decode.name))
            if met_an_earlier_life(prefill, decode, proof):
                continue
            pair = (prefill.name, decode.name)
            if proof is None or not of_these_lives(prefill, decode, proof):
                due.append((0, 0.0, pair))
            elif not proof.ok and now - proof.at >= RETRY_SECONDS:
                due.append((1, proof.at, pair))
            elif proof.ok and now - proof.at >= REPEAT_SECONDS:
                due.append((2, proof.at, pair))
    return tuple(pair for _, _, pair in sorted(due))


def restarts_due(
    views: Sequence[GroupView],
    proofs: Mapping[tuple[str, str], Proof],
    membership: Membership,
    now: float,
    silence_seconds: float,
) -> tuple[Restart, ...]:
    """Decode groups that must start anew, because a prefill group they took KV from did.

    Those without use go at once; of those that serve one at a time, and only while another serves
    or none is on its way: requests have a decode group to go to wherever there are two.
    """
    # One that waits to take up another revision starts anew when its turn comes.
    decodes = [group for group in views if group.role == "decode" and not group.wants]
    alive = [group for group in decodes if not unusable(group, now, silence_seconds)]
    due = [
        _restart(prefill, decode)
        for decode in alive
        for prefill in views
        if prefill.role == "prefill"
        and met_an_earlier_life(prefill, decode, proofs.get((prefill.name, decode.name)))
    ]
    due = list({restart.decode: restart for restart in reversed(due)}.values())[::-1]
    idle = tuple(restart for restart in due if restart.decode not in membership.decode)
    if idle or not due:
        return idle
    others_serve = set(membership.decode) - {due[0].decode}
    others_come = [g for g in decodes if g not in alive and now - g.heard_at <= silence_seconds]
    return (due[0],) if others_serve or not others_come else ()


def _restart(prefill: GroupView, decode: GroupView) -> Restart:
    life = prefill.life
    generation = life.generation if life is not None else 0
    cause = (
        f"{prefill.name} started anew (generation {generation}): this release doesn't take a "
        "second life of a peer that it had KV from"
    )
    return Restart(decode.name, decode.life or Life("", 0), cause)


def unusable(group: GroupView, now: float, silence_seconds: float) -> str:
    """Why a group can't be used, by its own word; empty where it can."""
    if group.life is None:
        return "was never heard of"
    if silent(group, now, silence_seconds):
        return f"has not been heard of for more than {silence_seconds:g} s"
    return group.fault


def silent(group: GroupView, now: float, silence_seconds: float) -> bool:
    """Whether a group that was heard of is heard no more."""
    return group.life is not None and now - group.heard_at > silence_seconds


def _suspected(group: GroupView, proofs: Mapping[tuple[str, str], Proof]) -> str:
    """Why a group goes before its silence is long enough; empty where it may stay.

    Of a pair that fails one group has to go: it is the one whose agent doesn't answer either.
    """
    if group.answered or group.life is None:
        return ""
    for proof in proofs.values():
        lives = {proof.prefill: proof.prefill_life, proof.decode: proof.decode_life}
        if proof.reason and lives.get(group.name) == group.life:
            return "its agent doesn't answer, and a completion through it failed"
    return ""


def _unproven(
    prefill: GroupView, decode: GroupView, proofs: Mapping[tuple[str, str], Proof]
) -> str:
    proof = proofs.get((prefill.name, decode.name))
    if met_an_earlier_life(prefill, decode, proof):
        return f"{decode.name} must start anew first: it knows an earlier life of {prefill.name}"
    if proof is None or not of_these_lives(prefill, decode, proof):
        return "no completion went through this pair yet"
    return proof.reason


def of_these_lives(prefill: GroupView, decode: GroupView, proof: Proof) -> bool:
    """Whether a trial is about the present lives of both groups."""
    return proof.prefill_life == prefill.life and proof.decode_life == decode.life


def met_an_earlier_life(prefill: GroupView, decode: GroupView, proof: Proof | None) -> bool:
    """Whether a decode group that must not has spoken with a life of prefill that is over."""
    return (
        decode.restart_with_peer
        and proof is not None
        and proof.decode_life == decode.life
        and prefill.life is not None
        and proof.prefill_life != prefill.life
    )


def _largest(
    prefill: list[str],
    decode: list[str],
    good: set[tuple[str, str]],
    current: Membership | None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The largest set of which every pair is good: first the smaller side, then both together."""
    if not good:
        return (), ()
    turned = len(decode) < len(prefill)
    small, large = (decode, prefill) if turned else (prefill, decode)
    fits = {(b, a) if turned else (a, b) for a, b in good}
    kept = {*current.prefill, *current.decode} if current is not None else set()
    best: tuple[tuple[int, int, int], tuple[str, ...], tuple[str, ...]] = ((0, 0, 0), (), ())
    for chosen in _subsets(sorted(small), fits):
        others = tuple(b for b in sorted(large) if all((a, b) in fits for a in chosen))
        score = (
            min(len(chosen), len(others)),
            len(chosen) + len(others),
            len(kept & {*chosen, *others}),
        )
        if others and score > best[0]:
            best = (score, chosen, others)
    return (best[2], best[1]) if turned else (best[1], best[2])


def _subsets(names: list[str], fits: set[tuple[str, str]]) -> Iterable[tuple[str, ...]]:
    if len(names) > SEARCHED:
        # Too many to look at all: those that fit with the most others, one more at a time.
        ranked = sorted(names, key=lambda n: (-sum(a == n for a, _ in fits), n))
        return (tuple(sorted(ranked[:size])) for size in range(1, len(names) + 1))
    return (chosen for size in range(1, len(names) + 1) for chosen in combinations(names, size))
