"""From evidence to diagnoses: which symptoms show, where, and which of them are causes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from infra.doctor.library import STAGES, Symptom, affects


@dataclass(frozen=True)
class Evidence:
    """What one node says. where: which of its documents. at: when it was said, epoch seconds.

    fields: of its status by dotted names. metrics: vLLM's, the largest value of each.
    """

    node: str
    where: str
    text: str = ""
    at: float = 0.0
    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    vllm: str = ""


@dataclass(frozen=True)
class Sighting:
    """One place where a symptom shows: the line, the field or the metric."""

    node: str
    where: str
    shown: str
    at: float


@dataclass(frozen=True)
class Diagnosis:
    """A symptom and where it shows, the earliest first. consequence_of: ids that explain it."""

    symptom: Symptom
    sightings: tuple[Sighting, ...]
    consequence_of: tuple[str, ...] = ()


def diagnose(evidence: Iterable[Evidence], library: Iterable[Symptom]) -> tuple[Diagnosis, ...]:
    """All that shows: causes first, by stage of a node's way, then by time; consequences last."""
    held = tuple(evidence)
    shown = {}
    for symptom in library:
        seen = [s for piece in held if (s := sighting(symptom, piece)) is not None]
        if seen:
            shown[symptom.id] = (symptom, tuple(sorted(seen, key=lambda s: s.at)))
    found = []
    for symptom, seen in shown.values():
        reasons = tuple(i for i, (other, _) in shown.items() if symptom.id in other.explains)
        found.append(Diagnosis(symptom, seen, reasons))
    return tuple(sorted(found, key=_order))


def sighting(symptom: Symptom, piece: Evidence) -> Sighting | None:
    """Whether and where a symptom shows in one piece of evidence."""
    if not affects(symptom.affected, piece.vllm):
        return None
    shown = next(_shown(symptom, piece), None)
    return None if shown is None else Sighting(piece.node, piece.where, shown, piece.at)


def _shown(symptom: Symptom, piece: Evidence) -> Iterator[str]:
    for pattern in symptom.log:
        match = re.search(f"^.*?(?:{pattern}).*$", piece.text, re.MULTILINE)
        if match:
            yield match[0].strip()[:240]
    if symptom.status:
        value = piece.fields.get(symptom.status.field)
        if value is not None and re.search(symptom.status.pattern, value):
            yield f"{symptom.status.field}: {value}"[:240]
    if symptom.metric:
        value = piece.metrics.get(symptom.metric.name)
        if value is not None and value > symptom.metric.above:
            yield f"{symptom.metric.name} {value:g}"


def _order(diagnosis: Diagnosis) -> tuple[bool, int, float]:
    stage = STAGES.index(diagnosis.symptom.stage)
    return bool(diagnosis.consequence_of), stage, diagnosis.sightings[0].at
