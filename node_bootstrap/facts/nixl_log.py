"""NIXL's log: which backend carries KV cache between prefill and decode."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown

COMMAND = ("journalctl", "--unit=moe-role.service", "--output=cat", "--no-pager")
_BACKEND = re.compile(r"Backend (\w+) was instantiated")
_TROUBLE = re.compile(
    r"(?:Failed to load plugin|Unable to (?:load|find) plugin|cannot open shared object file|"
    r"fi_mr_reg\w* failed|NIXL_ERR_\w+|nixlBackendError|Failed to create backend)[^\n]*"
)


@dataclass(frozen=True)
class NixlLog:
    """Backends that were made, and what NIXL complained of."""

    backends: tuple[str, ...]
    trouble: tuple[str, ...]


def parse(output: str) -> NixlLog | Unknown:
    """Lines of NIXL wherever they stand in the log."""
    backends = tuple(sorted(set(_BACKEND.findall(output))))
    trouble = tuple(dict.fromkeys(m[0].strip()[:160] for m in _TROUBLE.finditer(output)))
    if not backends and not trouble and "nixl" not in output.lower():
        return Unknown("NIXL wrote nothing: no KV connector is configured, or vLLM is not so far")
    return NixlLog(backends, trouble)
