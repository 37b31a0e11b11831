"""The plugin's code runs where PyTorch and vLLM are: in the rehearsal's vLLM runtime, in one "
"process for all checks."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from rehearsal.image import vllm

CHECKS = Path(__file__).with_name("checks_in_runtime.py")


@pytest.fixture(scope="session")
def runtime() -> Path:
    return vllm.ensure()


@pytest.fixture(scope="session")
def outcomes(runtime: Path) -> dict[str, str]:
    """Outcome of every check by its name: `passed`, or a traceback."""
    source = vllm.PLUGIN / "src"
    done = subprocess.run(
        [str(vllm.python(runtime)), str(CHECKS)],
        env={**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
