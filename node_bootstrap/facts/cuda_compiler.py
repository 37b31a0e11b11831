"""`nvcc --version`: the CUDA toolkit that kernels are built with."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("nvcc", "--version")


@dataclass(frozen=True)
class Compiler:
    """release: major and minor. version: the whole."""

    release: str
    version: str


def parse(output: str) -> Compiler | Unknown:
    """The line of the release."""
    match = re.search(r"release (\d+\.\d+), V(\d[\d.]*)", output)
    if match is None:
        return Unknown(f"nvcc is not understood: {first_line(output)}")
    return Compiler(match[1], match[2])
