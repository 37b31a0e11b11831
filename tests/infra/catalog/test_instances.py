from __future__ import annotations

import gzip
import json
from importlib import resources

import pytest
from moto import mock_aws

from infra.catalog import UnknownNameError, instance_type, instance_types, refresh


@pytest.fixture(scope="module")
def described():
    packed = (resources.files("moto.ec2") / "resources" / "instance_types.json.gz").read_bytes()
    return json.loads(gzip.decompress(packed))


def test_the_file_says_what_ec2_describes(described):
    catalog = json.loads((resources.files("infra.catalog") / "instance_types.json").read_text())
    fresh = [refresh.condense(d) for name, d in described.items() if refresh.wanted(name)]

    assert {r["name"]: r for r in catalog["types"]} == {r["name"]: r for r in fresh}


def test_refreshing_from_the_same_answers_gives_the_same_bytes(described):
    text = (resources.files("infra.catalog") / "instance_types.json").read_text()
    head = json.loads(text)

    assert refresh.document(described.values(), head["source"], head["date"]) == text


@pytest.mark.parametrize("name", ["instance_types.json", "vllm_releases.json"])
def test_json_files_state_source_and_date(name):
    document = json.loads((resources.files("infra.catalog") / name).read_text())

    assert document["source"]
    assert document["date"].startswith("2026-")


@pytest.mark.parametrize(
    ("name", "vcpus", "memory_gib"),
    [("c7i.large", 2, 4), ("m7i.xlarge", 4, 16), ("c7a.4xlarge", 16, 32), ("t3.micro", 2, 1)],
)
def test_cpu_types_have_vcpus_and_memory(name, vcpus, memory_gib):
    kind = instance_type(name)

    assert (kind.vcpus, kind.memory_gib, kind.gpu_count) == (vcpus, memory_gib, 0)


@pytest.mark.parametrize(
    ("name", "wanted", "usd"),
    [
        ("p4d.24xlarge", (8, 40960, 4, 4, 8), 21.96),
        ("p5.4xlarge", (1, 81920, 1, 1, 1), 6.88),
        ("p5.48xlarge", (8, 81920, 32, 32, 8), 55.04),
        ("p5en.48xlarge", (8, 144384, 16, 16, 8), 63.30),
        ("p6-b200.48xlarge", (8, 183359, 8, 8, 8), 113.93),
        ("p6-b300.48xlarge", (8, 275040, 17, 16, 8), 142.42),
        ("g6e.48xlarge", (8, 45776, 4, 4, 1), 30.13),
        ("g7e.48xlarge", (8, 98304, 4, 4, 1), 33.14),
    ],
)
def test_gpu_types_match_the_published_table(name, wanted, usd):
    kind = instance_type(name)

    assert kind.gpus is not None
    assert kind.price is not None
    assert wanted == (
        kind.gpus.count,
        kind.gpus.memory_mib,
        len(kind.network_cards),
        kind.max_efa,
        kind.nvlink_domain_gpus,
    )
    assert kind.price.usd_per_hour == pytest.approx(usd, abs=0.006)


def test_p4_can_read_but_not_write_remote_memory():
    assert (instance_type("p4d.24xlarge").rdma_read, instance_type("p4d.24xlarge").rdma_write) == (
        True,
        False,
    )
    assert instance_type("p5.48xlarge").rdma_write


def test_sizes_without_efa_have_no_rdma():
    assert not instance_type("g6e.xlarge").rdma_read


def test_card_0_of_p6_b300_carries_no_efa():
    cards = instance_type("p6-b300.48xlarge").network_cards

    assert [card.efa_only for card in cards] == [False] + [True] * 16


def test_an_unknown_type_is_answered_with_near_names():
    with pytest.raises(UnknownNameError, match=r"p5\.48xlarge"):
        instance_type("p5.48xl")


def test_every_type_is_complete():
    for kind in instance_types().values():
        assert kind.vcpus > 0
        assert kind.memory_gib > 0
        assert [card.index for card in kind.network_cards] == list(range(len(kind.network_cards)))
        assert kind.network_gbps > 0


@pytest.mark.parametrize(
    ("stated", "gbps", "burst"),
    [
        ("4x 100 Gigabit", 400, False),
        ("Up to 12.5 Gigabit", 12.5, True),
        ("3200 Gigabit", 3200, False),
    ],
)
def test_network_performance_is_read_as_ec2_writes_it(stated, gbps, burst):
    assert refresh.network_gbps(stated) == (gbps, burst)


def test_a_network_performance_of_another_form_is_refused():
    with pytest.raises(ValueError, match="Low to Moderate"):
        refresh.network_gbps("Low to Moderate")


def test_the_refresh_reads_every_page_of_the_ec2_api(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        described = refresh.describe(["us-east-1", "us-west-2"])

    names = {d["InstanceType"] for d in described}
    assert {"p5.48xlarge", "p6-b200.48xlarge", "c7i.large"} <= names
    assert all(name.split(".")[0] in refresh.FAMILIES for name in names)
