"""What the tests of a machine with GPUs share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def has(module: str) -> bool:
    """Whether this Python can import a module, asked in a process of its own."""
    command = [sys.executable, "-c", f"import {module}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
