"""`moe doctor`."""

from __future__ import annotations

import json


def test_the_library_for_programs(moe):
    shown = moe("doctor", "--list", "--json")
    assert shown.exit_code == 0
    entries = json.loads(shown.stdout)
    assert {"id", "cause", "affected", "fix", "verify", "source"} <= set(entries[0])
    assert len(entries) >= 30


def test_a_log_is_read_without_a_stack(moe, tmp_path):
    log = tmp_path / "vllm.log"
    log.write_text("INFO fine\nNCCL INFO Using network Socket\nEngineDeadError\n")
    shown = moe("doctor", "--log", str(log))
    assert shown.exit_code == 1
    assert "1. NCCL goes over TCP sockets instead of EFA [NCCL_SOCKET]" in shown.stdout
    assert "fix     NCCL_NET_PLUGIN=ofi" in shown.stdout


def test_consequences_are_hidden_and_counted(moe, tmp_path):
    log = tmp_path / "vllm.log"
    log.write_text("torch.OutOfMemoryError: CUDA out of memory\nEngineDeadError\n")
    shown = moe("doctor", "--log", str(log))
    assert "ENGINE_DEAD" not in shown.stdout
    assert "1 more follow from these" in shown.stdout
    assert "follows from OOM_LOADING" in moe("doctor", "--log", str(log), "--all").stdout


def test_a_healthy_log_has_nothing(moe, tmp_path):
    log = tmp_path / "vllm.log"
    log.write_text("INFO fine\n")
    shown = moe("doctor", "--log", str(log))
    assert (shown.exit_code, shown.stdout) == (0, "Nothing that is known to be a symptom.\n")


def test_metrics_for_programs(moe, tmp_path):
    file = tmp_path / "metrics"
    file.write_text('vllm:kv_cache_usage_perc{engine="0"} 0.99\n')
    (found,) = json.loads(moe("doctor", "--metrics", str(file), "--json").stdout)
    assert found["symptom"]["id"] == "KV_EXHAUSTED"


def test_a_file_that_is_not_there_is_named(moe):
    shown = moe("doctor", "--log", "/absent.log")
    assert shown.exit_code == 2
    assert "/absent.log: No such file" in shown.output
