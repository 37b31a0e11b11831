"""Forked engine processes on CPU, where the environment asks for them.

vLLM names the start method of its processes in VLLM_WORKER_MULTIPROC_METHOD, but its CPU platform
sets "spawn" whatever was asked: each engine core and the coordinator of data parallelism then
import PyTorch and vLLM again, half of all the processor time of a start. "fork" is what vLLM itself
takes on GPUs as long as CUDA is untouched; on CPU nothing speaks against it with one thread for
each engine (OMP_NUM_THREADS=1).
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import functools
import os
from typing import Any

VARIABLE = "VLLM_WORKER_MULTIPROC_METHOD"


def install() -> list[str]:
    """Let "fork" stand where the environment asks for it; returns what was changed, in words."""
    from vllm.platforms.cpu import CpuPlatform  # noqa: PLC0415

    update = CpuPlatform.check_and_update_config.__func__
    if os.environ.get(VARIABLE) != "fork" or hasattr(update, "__wrapped__"):
        return []

    @functools.wraps(update)
    def update_and_keep_fork(cls: type, vllm_config: Any) -> None:
        update(cls, vllm_config)
        os.environ[VARIABLE] = "fork"

    CpuPlatform.check_and_update_config = classmethod(update_and_keep_fork)
    return ["engine processes forked"]
