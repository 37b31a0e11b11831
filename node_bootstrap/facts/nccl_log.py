"""NCCL's log (NCCL_DEBUG=INFO): whether traffic between nodes really goes over EFA."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown

COMMAND = ("journalctl", "--unit=moe-role.service", "--output=cat", "--no-pager")
_PROVIDER = re.compile(
    r"NET/OFI Selected provider is (\w+)(?:, fabric is [\w-]+)?(?: \(found (\d+) nics\))?"
)
_NETWORK = re.compile(r"Using network ([A-Za-z][\w ()-]*?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class NcclLog:
    """networks: each that NCCL said to use. nics: the least that any process found.

    trouble: the plugin's own words where it could not be loaded or initialized.
    """

    version: str
    networks: tuple[str, ...]
    providers: tuple[str, ...]
    nics: int | None
    trouble: tuple[str, ...]

    @property
    def on_sockets(self) -> bool:
        """Whether any process fell back to TCP."""
        return any(n.startswith("Socket") for n in self.networks)


def parse(output: str) -> NcclLog | Unknown:
    """Lines of NCCL wherever they stand in the log."""
    if "NCCL INFO" not in output and "NCCL WARN" not in output:
        return Unknown("NCCL wrote nothing: NCCL_DEBUG=INFO is not set, or no communicator yet")
    found = _PROVIDER.findall(output)
    version = re.search(r"NCCL version (\d[\w.+-]*)", output)
    trouble = re.findall(
        r"NET/(?:Plugin|OFI)[^\n]*(?:[Cc]ould not find|Failed|failed|No plugin found|error)[^\n]*",
        output,
    )
    nics = [int(n) for _, n in found if n]
    return NcclLog(
        version=version[1] if version else "",
        networks=tuple(sorted({n.strip() for n in _NETWORK.findall(output)})),
        providers=tuple(sorted({p for p, _ in found})),
        nics=min(nics, default=None),
        trouble=tuple(dict.fromkeys(t.strip()[:160] for t in trouble)),
    )
