"""What `moe plan` prints for a person."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from infra.render import text, words


def shown(plan, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False, emoji=False)
    text.show(plan, console)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


@pytest.mark.parametrize("stack", ["wide-ep", "pd", "cpu-smoke"])
def test_an_example_stack(stack: str, plan_of, snapshot):
    assert shown(plan_of(stack)) == snapshot


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("stack", ["single-node", "wide-ep", "pd", "p6-b200", "p6-b300"])
def test_no_line_is_wider_than_the_terminal_and_no_image_is_cut(stack, width, plan_of):
    plan = plan_of(stack)
    printed = shown(plan, width)
    assert max(len(line) for line in printed.splitlines()) <= width
    for node in plan.nodes:
        assert node.software.image in printed


def test_many_equal_nodes_are_one_row(plan_of):
    printed = shown(plan_of("wide-ep", nodes=64), 120)
    assert "serve-0-1 … serve-0-63 (63 nodes)  headless  ranks 8-511, 8 each" in printed
    assert "serve-0-2" not in printed


def test_many_equal_replicas_are_one_row(plan_of):
    printed = shown(plan_of("wide-ep", replicas=9), 120)
    assert "serve (serve)" not in printed
    assert "9 replicas, each 2 x p5en.48xlarge" in printed
    assert "serve-1 … serve-8 (8 replicas)" in printed


def test_nodes_that_share_a_rank_say_so(plan_of):
    changes = {"tensor_parallel_size": 16, "eplb": None, "all2all_backend": "auto"}
    assert "part of the rank of the node before" in shown(plan_of("wide-ep", **changes))


def test_a_plan_that_does_not_fit_says_which_would(plan_of):
    plan = plan_of("wide-ep", nodes=1, instance_type="p5.48xlarge")
    assert plan.groups[0].memory is not None
    assert not plan.groups[0].memory.fits
    printed = " ".join(shown(plan).split())
    assert "does not fit: " in printed
    for near in plan.groups[0].nearest:
        assert f"would fit: {near.change}" in printed


@pytest.mark.parametrize("stack", ["single-node", "wide-ep", "pd", "p6-b200", "p6-b300"])
def test_the_parts_of_the_bar_add_up_to_the_gpu(stack, plan_of):
    for group in plan_of(stack).groups:
        parts = words.memory_parts(group.memory)
        assert sum(part.gib for part in parts) == pytest.approx(group.memory.gpu_total_gib, 1e-3)
        assert [part.name for part in parts] == list(words.MEMORY_PARTS)


def test_redundant_experts_are_a_part_of_their_own(plan_of):
    with_them, without = (
        {p.name: p.gib for p in words.memory_parts(plan.groups[0].memory)}
        for plan in (plan_of("wide-ep"), plan_of("wide-ep", eplb=None))
    )
    assert with_them["redundant experts, EPLB"] > 4
    assert without["redundant experts, EPLB"] == 0
    assert without["KV cache"] > with_them["KV cache"]


def test_numbers_in_runs():
    assert words.ranges([0, 1, 2, 5, 8, 9]) == "0-2, 5, 8-9"
    assert words.ranges([3]) == "3"
