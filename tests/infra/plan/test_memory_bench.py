"""`pytest -m bench -s`: the memory plan against measurement, case by case."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from infra.plan.memory import plan_memory

spec = importlib.util.spec_from_file_location(
    "memory_cases", Path(__file__).with_name("test_memory_measured.py")
)
assert spec
assert spec.loader
cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)


@pytest.mark.bench
def test_memory_errors_case_by_case():
    print(f"\n{'case':28}{'measured':>10}{'planned':>10}{'error':>8}  weights  activation")
    worst = 0.0
    for name in cases.SERVED:
        run, plan = cases.RUNS[name], plan_memory(cases.as_request(cases.RUNS[name]))
        error = plan.kv_cache_tokens / run["kv_tokens"] - 1
        worst = max(worst, abs(error))
        mark = "" if name in cases.CALIBRATION else "  held out"
        print(
            f"{name:28}{run['kv_tokens']:>10}{plan.kv_cache_tokens:>10}{error:>+8.2%}"
            f"  {plan.weights_gib - run['weights_gib']:+.2f}    "
            f"{plan.peak_activation_gib - run['peak_activation_gib']:+.2f} GiB{mark}"
        )
    assert worst < 0.03
