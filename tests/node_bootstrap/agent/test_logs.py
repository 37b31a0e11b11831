"""vLLM's own words, as it logged them on two nodes."""

from __future__ import annotations

from node_bootstrap.agent import logs
from node_bootstrap.status import Experts

LINE = (
    "(EngineCore_DP1 pid=283) INFO 11-25 03:10:11 [expert_map_manager.py:250] [EP Rank 1/2] Expert "
    "parallelism is enabled. Expert placement strategy: linear. Local/global number of experts: "
    "4/8. Experts local to global index map: 0->4, 1->5, 2->6, 3->7.\n"
)


def test_the_experts_of_a_rank_are_read_from_its_own_line():
    assert logs.experts(LINE) == (Experts(1, 2, (4, 5, 6, 7), 8),)


def test_several_ranks_of_one_node_are_told_apart():
    other = LINE.replace("Rank 1/2", "Rank 0/2").replace("0->4, 1->5, 2->6, 3->7", "0->0, 1->1")
    assert [e.ep_rank for e in logs.experts(LINE + other + LINE)] == [0, 1]


def test_a_line_without_the_map_leaves_the_local_experts_unknown():
    assert logs.experts(LINE.partition(" Experts local")[0])[0].local == ()


def test_a_log_without_expert_parallelism_has_no_experts():
    assert logs.experts("INFO Starting vLLM API server\n") == ()


def test_the_backend_in_effect_is_named_as_the_flag_names_it():
    assert logs.all2all_backend("INFO Using AgRsAll2AllManager all2all manager.") == (
        "allgather_reducescatter"
    )
    assert logs.all2all_backend("Using allgather_reducescatter all2all manager.") == (
        "allgather_reducescatter"
    )
    assert logs.all2all_backend("Using DeepEPV2All2AllManager all2all manager.") == "deepep_v2"


def test_what_was_asked_for_but_is_not_in_effect_is_not_taken_for_it():
    log = (
        "WARNING `deepep_v2` all2all manager is not supported on CPU. Falling back to "
        "`allgather_reducescatter` manager.\nINFO Using allgather_reducescatter all2all manager.\n"
    )
    assert logs.all2all_backend(log) == "allgather_reducescatter"
    assert logs.all2all_backend("all2all_backend='pplx'") is None


def test_an_unknown_manager_is_given_by_its_name():
    assert logs.all2all_backend("Using BrandNewAll2AllManager all2all manager.") == "BrandNew"


def test_secrets_are_made_unreadable():
    assert logs.redact("key=abc, again abc", ("abc", "")) == "key=***, again ***"
