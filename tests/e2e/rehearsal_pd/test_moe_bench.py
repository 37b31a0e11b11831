"""`moe bench` for real: vLLM's load generator against prefill and decode, through the gateway."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from prefill_decode import STACK, PrefillDecode
from rehearsed import CHECKOUT

from infra.bench import result

pytestmark = pytest.mark.nightly

SEEDS = (1, 2, 3)
LOAD = ("--rate", "4", "--seconds", "2", "--input-tokens", "64", "--output-tokens", "8")


def test_three_seeds_give_a_table_a_file_and_a_plot(pd: PrefillDecode, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    moe = Path(sys.executable).with_name("moe")
    seeds = [word for seed in SEEDS for word in ("--seed", str(seed))]
    done = subprocess.run(
        [moe, "bench", "--stack", STACK, *LOAD, *seeds, "--label", "pd", "--out", out],
        cwd=CHECKOUT,
        env=pd.tool_env,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    bench = result.from_json(out.read_text(), out.name)
    assert [(run.seed, run.completed, run.failed) for run in bench.runs] == [
        (seed, 8, 0) for seed in SEEDS
    ]
    (row,) = json.loads(out.read_text())["rows"]
    spread = row["values"]["ttft_p50_ms"]
    assert 0 < spread["least"] <= spread["median"] <= spread["most"]
    assert len({run.values["ttft_p50_ms"] for run in bench.runs}) == len(SEEDS), "each its own"
    assert re.search(rf"^pd +4 +24 +0 +{spread['median']:.0f}", done.stdout, re.MULTILINE), (
        done.stdout
    )
    assert "says nothing about GPUs" in done.stdout
    drawn = ET.fromstring(out.with_suffix(".svg").read_text())  # noqa: S314 - written just now
    assert drawn.tag.endswith("svg")
    assert "says nothing about GPUs" in "".join(drawn.itertext())
