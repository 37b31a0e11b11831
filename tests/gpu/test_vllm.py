"""vLLM started by the command that the plan prints, with made-up weights; its memory, the plan's.

The plan is of a p5.48xlarge, whose GPUs are these; two of its eight are used.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.gpu.machine import CHECKOUT, has

pytestmark = pytest.mark.gpu

PORT, KEY = 8000, "of-this-test"
START_SECONDS = 420
SHARE = 0.05
"""By how much the plan may be off in tokens of KV cache."""


def settings(model: Path, **group) -> dict:
    held = {
        "instance_type": "p5.48xlarge",
        "data_parallel_size_local": 2,
        "max_model_len": 8192,
        "load_format": "dummy",
        "enforce_eager": True,
        "all2all_backend": "allgather_reducescatter",
    }
    release = os.environ.get("MOE_GPU_VLLM", "0.26.0")
    return {
        "config": {
            "aws:region": "us-east-2",
            "moe-serving:model": {"name": model.name, "source": str(model)},
            "moe-serving:vllm": {
                "version": release,
                "runtime": "venv",
                "python": sys.executable,
                "deepep": "stock",
            },
            "moe-serving:groups": {"serve": held | group},
        }
    }


def moe(*words: str) -> str:
    program = "from infra.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "plan", *words],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def command(printed: str, model: Path) -> str:
    """The printed command with a key, and the model where the plan says that nodes have it."""
    folder = Path("/var/lib/moe/models")
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (folder / model.name).symlink_to(model)
    return re.sub(r"(?m)^export VLLM_API_KEY=.*$", f"export VLLM_API_KEY={KEY}", printed)


def complete(rank: int) -> int:
    headers = {
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "application/json",
        "X-data-parallel-rank": str(rank),
    }
    models = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/models", headers=headers)
    with urllib.request.urlopen(models, timeout=5) as answer:
        name = json.load(answer)["data"][0]["id"]
    body = {"model": name, "prompt": "Hello", "max_tokens": 8, "temperature": 0}
    url = f"http://127.0.0.1:{PORT}/v1/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.status


def start(text: str, log: Path) -> tuple[float, str]:
    """Seconds until both ranks answered, and vLLM's log; it is ended again."""
    began = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-c", text], stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        while time.monotonic() - began < START_SECONDS:
            said = log.read_text(errors="replace")
            assert process.poll() is None, said[-5000:]
            with contextlib.suppress(OSError, urllib.error.URLError):
                if all(complete(rank) == 200 for rank in (0, 1)):
                    return time.monotonic() - began, log.read_text(errors="replace")
            time.sleep(2)
        pytest.fail(f"no answer after {START_SECONDS} s:\n{log.read_text()[-5000:]}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            time.sleep(5)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def measured(log: str) -> dict[str, float]:
    """What vLLM says of its memory: of the fullest GPU."""
    patterns = {
        "weights_gib": r"Model loading took ([\d.]+) GiB",
        "kv_cache_gib": r"Available KV cache memory: ([\d.]+) GiB",
        "kv_cache_tokens": r"GPU KV cache size: ([\d,]+) tokens",
    }
    found = {}
    for name, pattern in patterns.items():
        said = [float(x.replace(",", "")) for x in re.findall(pattern, log)]
        assert said, (name, log[-3000:])
        found[name] = max(said) if name == "weights_gib" else min(said)
    return found


@pytest.mark.parametrize("backend", ["allgather_reducescatter", "deepep_high_throughput"])
def test_the_printed_command_serves_on_both_ranks_and_memory_is_as_planned(
    gpus, needs, tmp_path, backend
):
    needs("vllm")
    if backend.startswith("deepep") and not has("deep_ep"):
        pytest.skip("needs DeepEP: test_deepep.py builds it into MOE_GPU_SITE")
    model = os.environ.get("MOE_GPU_MODEL", "")
    if not model:
        pytest.skip("needs MOE_GPU_MODEL: a folder with config.json and tokenizer")
    file = tmp_path / "gpu.yaml"
    file.write_text(yaml.safe_dump(settings(Path(model), all2all_backend=backend)))
    plan = json.loads(moe("-f", str(file), "--json"))["groups"][0]["memory"]
    text = command(moe("-f", str(file), "--commands"), Path(model))
    print(text)
    seconds, log = start(text, tmp_path / "vllm.log")
    found = measured(log)
    print(f"{backend}: both ranks answered after {seconds:.0f} s")
    for name, value in found.items():
        off = value / plan[name] - 1
        print(f"{name:16} measured {value:12.2f}  plan {plan[name]:12.2f}  {100 * off:+.1f} %")
    managers = re.findall(r"Using \S+ ?all2all (?:manager|backend)", log)
    print(sorted(set(managers)))
    assert abs(found["kv_cache_tokens"] / plan["kv_cache_tokens"] - 1) <= SHARE
    if backend.startswith("deepep"):
        assert "DeepEPHT" in log
