"""NIXL's progress thread with a pause between two polls.

nixl 1.5.0 starts it with a delay of 0 µs and has no setting: each engine with a NixlConnector keeps
one core busy while idle, which starves the others where cores are few.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import importlib
import os
from typing import Any

DELAY_VARIABLE = "VLLM_NIXL_PTHR_DELAY_US"


def apply_progress_delay() -> None:
    """Let NIXL's progress thread sleep VLLM_NIXL_PTHR_DELAY_US microseconds between two polls.

    Unset or 0 leaves NIXL as it is.

    Raises:
        ValueError: the variable isn't a whole number of microseconds.
    """
    delay_us = delay_from(os.environ.get(DELAY_VARIABLE, ""))
    if delay_us == 0:
        return
    # UCX reads it when it is loaded: vLLM sets the same before it imports NIXL.
    os.environ.setdefault("UCX_RCACHE_MAX_UNRELEASED", "1024")
    try:
        api = importlib.import_module("nixl_cu13._api")
    except ImportError:
        return
    make = api.nixlBind.nixlAgent
    if hasattr(make, "delay_us"):
        return

    def agent_with_delay(name: str, config: Any) -> Any:
        config.pthrDelay = delay_us
        return make(name, config)

    agent_with_delay.delay_us = delay_us  # pyright: ignore[reportFunctionMemberAccess] (marks it as ours)
    api.nixlBind.nixlAgent = agent_with_delay


def delay_from(value: str) -> int:
    """Microseconds from the variable's value; 0 for an empty one.

    Raises:
        ValueError: it isn't a whole number of microseconds, 0 or more.
    """
    if not value.strip():
        return 0
    if not value.strip().isdecimal():
        raise ValueError(
            f"{DELAY_VARIABLE}={value!r} must be a whole number of microseconds, 0 or more"
        )
    return int(value)
