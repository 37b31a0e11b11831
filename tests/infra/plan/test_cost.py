from __future__ import annotations

from infra.catalog import instance_type
from infra.plan.cost import cost


def test_cost_adds_up_all_nodes_with_the_day_of_the_prices():
    total = cost(
        {"serve": (instance_type("p5en.48xlarge"), 2), "gateway": (instance_type("c7i.large"), 1)}
    )

    assert total.usd_per_hour == 126.68125
    assert total.usd_per_day == round(24 * total.usd_per_hour, 2)
    assert (total.price_date, total.price_region) == ("2026-07-20", "us-east-1")
    assert [(line.what, line.count) for line in total.lines] == [("serve", 2), ("gateway", 1)]


def test_a_type_without_a_price_leaves_the_total_open_and_is_named():
    total = cost(
        {"serve": (instance_type("p5e.48xlarge"), 1), "gateway": (instance_type("c7i.large"), 1)}
    )

    assert total.usd_per_hour is None
    assert total.usd_per_day is None
    assert total.unpriced == ("p5e.48xlarge",)
    assert total.known_usd_per_hour == 0.08925


def test_no_nodes_cost_nothing():
    assert cost({}).usd_per_hour == 0
