from __future__ import annotations

import pytest

from infra import catalog
from infra.spent import Launch, sentence, spent

HOUR = 3600.0


def price(kind: str) -> float:
    found = catalog.instance_type(kind).price
    assert found is not None
    return found.usd_per_hour


def test_each_instance_costs_its_hours_times_its_price():
    launched = [Launch("a", "p5.48xlarge", 0.0), Launch("b", "c7i.large", HOUR)]
    made = spent(launched, now=2 * HOUR)
    assert made.usd == pytest.approx(2 * price("p5.48xlarge") + price("c7i.large"), abs=1e-3)
    assert made.usd_per_hour == pytest.approx(price("p5.48xlarge") + price("c7i.large"))
    assert made.hours == 2.0


def test_a_type_without_a_price_is_named():
    made = spent([Launch("a", "p5e.48xlarge", 0.0), Launch("b", "x9.large", 0.0)], now=HOUR)
    assert (made.usd, made.unpriced) == (0.0, ("p5e.48xlarge", "x9.large"))
    assert "without p5e.48xlarge, x9.large (no price known)" in sentence(made)


def test_spot_costs_at_most_that():
    made = spent([Launch("a", "p5.48xlarge", 0.0, "spot")], now=HOUR)
    assert sentence(made).startswith("at most $")


def test_nothing_that_lives_costs_nothing():
    assert sentence(spent([], now=HOUR)) == "no instance is billed"


def test_a_clock_that_is_behind_gives_no_negative_cost():
    assert spent([Launch("a", "p5.48xlarge", 100.0)], now=50.0).usd == 0.0
