"""The note that AWS' EFA installer leaves of its own version."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

NOTE = "opt/amazon/efa_installed_packages"
COMMAND = ("cat", f"/{NOTE}")


@dataclass(frozen=True)
class EfaInstaller:
    """The version that was installed last."""

    version: str


def parse(output: str) -> EfaInstaller | Unknown:
    """The first line of the note; the packages follow."""
    match = re.search(r"EFA installer version: (\S+)", output)
    if match is None:
        return Unknown(f"the note of EFA's installer is not understood: {first_line(output)}")
    return EfaInstaller(match[1])
