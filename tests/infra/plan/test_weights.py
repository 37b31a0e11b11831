from __future__ import annotations

import pytest

from infra import catalog
from infra.plan.weights import checkpoint_bytes, weights_plan

SIZES = [
    ("deepseek-ai/DeepSeek-V3", 671.0e9 + 2 * 2.0e9),
    ("Qwen/Qwen3-30B-A3B", 30.5e9 * 2),
    ("mistralai/Mixtral-8x7B-v0.1", 46.7e9 * 2),
]


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_size_of_the_checkpoint_from_the_shape_alone(name: str, size: float):
    assert checkpoint_bytes(catalog.model(name)) == pytest.approx(size, rel=0.02)


def test_700_gb_take_minutes_from_s3_and_an_hour_and_a_half_from_a_default_disk():
    plan = weights_plan(700 * 10**9, catalog.instance_type("p5.48xlarge"))
    seconds = {t.source: t.seconds for t in plan.load_times}
    assert seconds["EBS gp3, 125 MB/s (the default)"] == pytest.approx(93 * 60, rel=0.01)
    assert seconds["EBS gp3, 1000 MB/s"] == pytest.approx(11.7 * 60, rel=0.01)
    assert seconds["S3 to disk (s5cmd)"] == pytest.approx(2.7 * 60, rel=0.01)
    assert seconds["Hugging Face"] == pytest.approx(18.7 * 60, rel=0.01)


def test_fastest_way_comes_first():
    plan = weights_plan(10**9, catalog.instance_type("p6-b300.48xlarge"))
    assert [t.seconds for t in plan.load_times] == sorted(t.seconds for t in plan.load_times)


def test_unknown_size_has_no_times():
    assert weights_plan(0, catalog.instance_type("p5.48xlarge")) is None
