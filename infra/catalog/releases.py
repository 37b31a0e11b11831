"""vLLM releases: which flags, environment variables, fields and pins each one has."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from infra.catalog.instances import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping

UNSET = object()
"""Stands for a default that vLLM computes at start."""


@dataclass(frozen=True)
class Flag:
    """One option of `vllm serve` in one release.

    `choices` is what argparse enforces (None: anything); `default` is UNSET where vLLM computes it.
    `kind` is argparse's type (`int`, `str`, `json`, …), `boolean` for a switch with a negative.
    """

    name: str
    aliases: tuple[str, ...]
    negatives: tuple[str, ...]
    choices: tuple[str, ...] | None
    suggested: tuple[str, ...]
    kind: str
    config: str | None
    deprecated: bool
    default: Any


@dataclass(frozen=True)
class All2All:
    """How a release chooses its all2all backend. `mapped`: name → what vLLM takes instead."""

    choices: tuple[str, ...]
    default: str
    how: str
    mapped: Mapping[str, str]
    managers: Mapping[str, str]


@dataclass(frozen=True)
class Release:
    """One vLLM release. `series` is (major, minor), what most rules depend on."""

    version: str
    series: tuple[int, int]
    flags: Mapping[str, Flag]
    env: frozenset[str]
    all2all: All2All
    eplb_fields: Mapping[str, Any]
    eplb_communicators: tuple[str, ...]
    expert_placement: tuple[str, ...]
    kv_transfer_fields: Mapping[str, Any]
    kv_load_failure_policies: tuple[str, ...]
    nixl_side_channel_port: int
    data_parallel_rpc_port: int
    default_tokens_batched_dp: int | None
    deepep_ll_hidden_sizes: tuple[int, ...]
    nixl_ep_hidden_sizes: tuple[int, ...]
    handshake_timeout_minutes: int
    pins: Mapping[str, Any]

    def flag(self, option: str) -> Flag | None:
        """The flag behind an option as typed: name, alias or negative, `_` or `-`, `=value` cut."""
        name = option.split("=", 1)[0]
        name = name if not name.startswith("--") else "--" + name[2:].replace("_", "-")
        # `--compilation-config.mode` sets one key of a JSON flag.
        name = name.split(".", 1)[0]
        return self._spellings.get(name)

    @functools.cached_property
    def _spellings(self) -> dict[str, Flag]:
        return {
            spelling: flag
            for flag in self.flags.values()
            for spelling in (flag.name, *flag.aliases, *flag.negatives)
        }

    def accepts(self, option: str) -> bool:
        """Whether `vllm serve` of this release knows the option."""
        return self.flag(option) is not None


def release(version: str) -> Release:
    """The release of that version, with or without a leading `v`.

    A patch release that was not read is taken as the next patch of its series that was, else the
    last one; a series that was not read is an UnknownNameError.
    """
    return _release(_read_version(version))


def release_versions() -> tuple[str, ...]:
    """The versions that were read, oldest first."""
    return tuple(_document()["releases"])


def flag_life(name: str) -> tuple[tuple[str, str], ...]:
    """First and last release of each stretch in which a flag exists; empty if it never did."""
    spans = _document()["flags"].get(name, ())
    return _joined([(span["first"], span["last"]) for span in spans])


def env_life(name: str) -> tuple[tuple[str, str], ...]:
    """First and last release of each stretch in which vLLM reads an environment variable."""
    return tuple((first, last) for first, last in _document()["env"].get(name, ()))


def changed_defaults(old: str, new: str) -> tuple[tuple[str, Any, Any], ...]:
    """Flags of both releases whose default differs: (flag, old default, new default)."""
    before, after = release(old), release(new)
    found = []
    for name, flag in before.flags.items():
        other = after.flags.get(name)
        if other is not None and flag.default != other.default:
            found.append((name, flag.default, other.default))
    return tuple(found)


def _read_version(version: str) -> str:
    known = release_versions()
    wanted = version.strip().removeprefix("v")
    if wanted in known:
        return wanted
    number = _number(wanted)
    series = [v for v in known if number and _number(v)[:2] == number[:2]]
    if len(number) < 2 or not series:
        raise UnknownNameError("vLLM release", version, list(known))
    later = [v for v in series if _number(v) >= number]
    return later[0] if later else series[-1]


def _number(version: str) -> tuple[int, ...]:
    parts = version.split(".post", 1)[0].split(".")
    return tuple(int(p) for p in parts) if all(p.isdigit() for p in parts) else ()


@functools.cache
def _document() -> dict[str, Any]:
    folder = resources.files(__package__ or "infra.catalog")
    return json.loads((folder / "vllm_releases.json").read_text())


@functools.cache
def _release(version: str) -> Release:
    document = _document()
    order = {v: i for i, v in enumerate(document["releases"])}

    def at(spans: list[dict[str, Any]]) -> Any:
        here = order[version]
        held = [s for s in spans if order[s["first"]] <= here <= order[s["last"]]]
        return held[0]["value"] if held else None

    flags = {name: at(spans) for name, spans in document["flags"].items()}
    facts = {name: at(spans) for name, spans in document["facts"].items()}
    env = {
        name
        for name, spans in document["env"].items()
        if any(order[first] <= order[version] <= order[last] for first, last in spans)
    }
    major, minor, *_ = _number(version)
    transfer = facts["kv_transfer"]
    policies = transfer.get("kv_load_failure_policy") or {}
    return Release(
        version=version,
        series=(major, minor),
        flags={name: _flag(name, spec) for name, spec in flags.items() if spec is not None},
        env=frozenset(env),
        all2all=_all2all(facts["all2all"]),
        eplb_fields=facts["eplb_fields"],
        eplb_communicators=tuple((facts["eplb_choices"] or {}).get("communicator") or ()),
        expert_placement=tuple(facts["expert_placement"]),
        kv_transfer_fields=transfer["fields"],
        kv_load_failure_policies=tuple(policies.get("choices") or ()),
        nixl_side_channel_port=facts["nixl_side_channel_port"],
        data_parallel_rpc_port=facts["data_parallel_rpc_port"],
        default_tokens_batched_dp=facts["default_max_num_batched_tokens_for_batched_dp"],
        deepep_ll_hidden_sizes=tuple(facts["deepep_ll_hidden_sizes"] or ()),
        nixl_ep_hidden_sizes=tuple(facts["nixl_ep_hidden_sizes"] or ()),
        handshake_timeout_minutes=facts["handshake_timeout_minutes"] or 5,
        pins=facts["pins"],
    )


def _flag(name: str, spec: dict[str, Any]) -> Flag:
    negatives = tuple(spec.get("negatives", ()))
    action = spec.get("action")
    kind = "boolean" if negatives or action in ("store_true", "store_false") else None
    choices = spec.get("choices")
    return Flag(
        name=name,
        aliases=tuple(spec.get("aliases", ())),
        negatives=negatives,
        choices=tuple(str(c) for c in choices) if choices else None,
        suggested=tuple(str(c) for c in spec.get("suggested", ())),
        kind=kind or spec.get("type") or "str",
        config=spec.get("config"),
        deprecated=bool(spec.get("deprecated")),
        default=spec.get("default", UNSET),
    )


def _all2all(facts: dict[str, Any]) -> All2All:
    return All2All(
        choices=tuple(facts["choices"]),
        default=facts["default"],
        how=facts["how"],
        mapped=facts.get("mapped") or {},
        managers=facts.get("managers") or {},
    )


def _joined(spans: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Neighbouring stretches become one: they differ in the flag's form, not in its presence."""
    order = {v: i for i, v in enumerate(_document()["releases"])}
    joined: list[tuple[str, str]] = []
    for first, last in spans:
        if joined and order[first] == order[joined[-1][1]] + 1:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return tuple(joined)
