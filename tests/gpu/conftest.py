"""What only a machine with NVIDIA GPUs can show. Run there: `pytest -m gpu -s tests/gpu`.

Each test is skipped, with its reason, where what it needs is missing. What they read of the
environment: MOE_GPU_DEEPEP, a git repository of DeepEP where GitHub can't be reached;
MOE_GPU_MODEL, a folder with config.json and tokenizer of a model, whose weights are made up;
MOE_GPU_VLLM, the release of vLLM that this Python has.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.gpu.machine import has


@pytest.fixture(scope="session")
def gpu() -> list[str]:
    """Names of the GPUs, as nvidia-smi has them: at least one."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs NVIDIA GPUs: {error}")
    names = [line.strip() for line in said.splitlines() if line.strip()]
    if not names:
        pytest.skip("needs an NVIDIA GPU: nvidia-smi names none")
    return names


@pytest.fixture(scope="session")
def gpus(gpu) -> list[str]:
    """The same where there are two or more."""
    if len(gpu) < 2:
        pytest.skip(f"needs two GPUs, this machine has {len(gpu)}")
    return gpu


@pytest.fixture(scope="session")
def needs():
    """Skip where this Python lacks a module."""

    def need(module: str) -> None:
        if not has(module):
            pytest.skip(f"{sys.executable} can't import {module}")

    return need
