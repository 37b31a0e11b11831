"""vLLM's log: the all-to-all backend in effect, and the memory that it measured at start."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.agent.logs import all2all_backend
from node_bootstrap.facts.base import Unknown

COMMAND = ("journalctl", "--unit=moe-role.service", "--output=cat", "--no-pager")
_VERSION = re.compile(r"vLLM (?:API server )?version v?(\d[\w.+]*)|\(v(\d[\w.+]*)\) with config")


@dataclass(frozen=True)
class VllmLog:
    """GiB and tokens are of the rank that has least; None where the log has no such line yet."""

    version: str
    all2all_backend: str | None
    weights_gib: float | None
    load_seconds: float | None
    kv_cache_gib: float | None
    kv_cache_tokens: int | None
    graphs_seconds: float | None


def parse(output: str) -> VllmLog | Unknown:
    """Lines of vLLM wherever they stand; the wording of 0.11 to 0.33."""
    version = _VERSION.search(output)
    if version is None and "vllm" not in output.lower():
        return Unknown("vLLM wrote nothing yet")
    took = r"[Mm]odel loading took ([\d.]+) (GiB|GB)(?: memory)? and ([\d.]+) seconds"
    loads = re.findall(took, output)
    tokens = re.findall(r"GPU KV cache size: ([\d,]+) tokens", output)
    kv = re.findall(r"Available KV cache memory: (-?[\d.]+) GiB", output)
    graphs = re.findall(r"Graph capturing finished in ([\d.]+) secs", output)
    return VllmLog(
        version=next((v for v in version.groups() if v), "") if version else "",
        all2all_backend=all2all_backend(output),
        weights_gib=max((float(size) for size, _, _ in loads), default=None),
        load_seconds=max((float(seconds) for _, _, seconds in loads), default=None),
        kv_cache_gib=min((float(v) for v in kv), default=None),
        kv_cache_tokens=min((int(v.replace(",", "")) for v in tokens), default=None),
        graphs_seconds=max((float(v) for v in graphs), default=None),
    )
