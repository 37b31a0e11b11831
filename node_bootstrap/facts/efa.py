"""`fi_info -p efa`: the EFA devices that libfabric offers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("/opt/amazon/efa/bin/fi_info", "-p", "efa", "-t", "FI_EP_RDM")


@dataclass(frozen=True)
class Efa:
    """Domains, one a device (`rdmap79s0-rdm`), and libfabric's version of the provider."""

    domains: tuple[str, ...]
    provider_version: str


def parse(output: str) -> Efa | Unknown:
    """Blocks of `provider: efa`; none at all is a value of no devices, by fi_info's own words."""
    if re.search(r"fi_getinfo: -?\d+|No data available", output):
        return Efa((), "")
    blocks = re.split(r"(?m)^provider:", output)[1:]
    if not blocks:
        return Unknown(f"fi_info is not understood: {first_line(output)}")
    efa = [b for b in blocks if b.split()[:1] == ["efa"]]
    domains = {m[1] for b in efa if (m := re.search(r"(?m)^\s*domain: (\S+)", b))}
    versions = [m[1] for b in efa if (m := re.search(r"(?m)^\s*version: (\S+)", b))]
    return Efa(tuple(sorted(domains)), versions[0] if versions else "")
