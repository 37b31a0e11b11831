"""Checks of the plugin against plain PyTorch: prints one JSON line with all outcomes.

The vLLM runtime's Python runs it, where there is no pytest.
Ranks are forked after the imports (vLLM's take seconds) and talk over Gloo on loopback, as engines
do.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import importlib
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import tempfile
import traceback
from types import SimpleNamespace

import torch
import torch.distributed as dist
import vllm_cpu_ep
from vllm._custom_ops import cpu_fused_moe, cpu_prepack_moe_weight
from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.expert_map_manager import determine_expert_map
from vllm.model_executor.layers.fused_moe.experts import cpu_moe
from vllm.platforms.cpu import CpuPlatform
from vllm_cpu_ep import compatibility, experts, nixl, start_method

WORLDS = (1, 2, 3, 4)
HIDDEN, EXPERT_HIDDEN, TOKENS = 64, 96, 21


# --- collectives: run on every rank -----------------------------------------------------------


def size_patterns(world):
    """Tokens per rank: even, uneven, some ranks without any, one rank with all, none at all."""
    return [
        [4] * world,
        [1 + 3 * rank for rank in range(world)],
        [0 if rank % 2 else 5 for rank in range(world)],
        [0] * (world - 1) + [7],
        [0] * world,
    ]


def of_rank(rank, rows, shape, dtype):
    """What a rank holds; every rank can compute every other's."""
    source = torch.Generator().manual_seed(1000 + rank)
    return torch.randint(-100, 100, (rows, *shape), generator=source).to(dtype)


def gathers_a_tensor(rank, world, group):
    kinds = [
        ((16,), torch.float32),
        ((2,), torch.int64),
        ((3, 5), torch.bfloat16),
        ((), torch.int32),
    ]
    for sizes, (shape, dtype) in itertools.product(size_patterns(world), kinds):
        mine = of_rank(rank, sizes[rank], shape, dtype)
        expected = torch.cat([of_rank(r, n, shape, dtype) for r, n in enumerate(sizes)])
        got = group.all_gatherv(mine, dim=0, sizes=sizes)
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def gathers_a_list_of_tensors(rank, world, group):
    kinds = [((16,), torch.bfloat16), ((3,), torch.float32), ((3,), torch.int64)]
    for sizes in size_patterns(world):
        got = group.all_gatherv([of_rank(rank, sizes[rank], *k) for k in kinds], dim=0, sizes=sizes)
        for tensor, kind in zip(got, kinds, strict=True):
            expected = torch.cat([of_rank(r, n, *kind) for r, n in enumerate(sizes)])
            torch.testing.assert_close(tensor, expected, rtol=0, atol=0)


def gathers_equal_parts_without_sizes(rank, world, group):
    expected = torch.cat([of_rank(r, 3, (4,), torch.float32) for r in range(world)])
    torch.testing.assert_close(group.all_gatherv(of_rank(rank, 3, (4,), torch.float32)), expected)


def gathers_along_another_dimension(rank, world, group):
    sizes = [1 + r for r in range(world)]
    parts = [of_rank(r, n, (6,), torch.float32).t() for r, n in enumerate(sizes)]
    torch.testing.assert_close(
        group.all_gatherv(parts[rank], dim=1, sizes=sizes), torch.cat(parts, dim=1)
    )


def scatters_the_sum(rank, world, group):
    for sizes, dtype in itertools.product(size_patterns(world), (torch.float32, torch.bfloat16)):
        parts = [of_rank(r, sum(sizes), (8,), dtype) for r in range(world)]
        before = parts[rank].clone()
        got = group.reduce_scatterv(parts[rank], dim=0, sizes=sizes)
        # Whole numbers below 256 have no rounding in bfloat16 either; sums of four may.
        expected = torch.stack([p.double() for p in parts]).sum(0).split(sizes)[rank].to(dtype)
        torch.testing.assert_close(
            got, expected, rtol=0.01 if dtype == torch.bfloat16 else 0, atol=0
        )
        torch.testing.assert_close(parts[rank], before, rtol=0, atol=0)


def scatters_equal_parts_of_the_last_dimension_by_default(rank, world, group):
    parts = [of_rank(r, 2, (3 * world,), torch.float32) for r in range(world)]
    expected = torch.stack(parts).sum(0).chunk(world, dim=-1)[rank]
    torch.testing.assert_close(group.reduce_scatterv(parts[rank]), expected)


def refuses_sizes_that_do_not_fit(rank, world, group):
    raises(ValueError, f"{world} ranks", group.all_gatherv, torch.ones(1, 2), 0, [1] * (world + 1))
    raises(ValueError, "sizes say", group.all_gatherv, torch.ones(2, 2), 0, [1] * world)
    raises(ValueError, "add up", group.reduce_scatterv, torch.ones(3 * world, 2), 0, [1] * world)
    if world > 1:
        raises(ValueError, "equal parts", group.reduce_scatterv, torch.ones(world + 1, 2), 0)


COLLECTIVES = (
    gathers_a_tensor,
    gathers_a_list_of_tensors,
    gathers_equal_parts_without_sizes,
    gathers_along_another_dimension,
    scatters_the_sum,
    scatters_equal_parts_of_the_last_dimension_by_default,
    refuses_sizes_that_do_not_fit,
)


# --- experts: one process plays all ranks in turn ----------------------------------------------


def moe_case(n_experts, topk, dtype):
    source = torch.Generator().manual_seed(n_experts)
    scale = HIDDEN**-0.5
    hidden = torch.randn(TOKENS, HIDDEN, generator=source).to(dtype)
    w1 = (torch.randn(n_experts, 2 * EXPERT_HIDDEN, HIDDEN, generator=source) * scale).to(dtype)
    w2 = (torch.randn(n_experts, HIDDEN, EXPERT_HIDDEN, generator=source) * scale).to(dtype)
    scores = torch.randn(TOKENS, n_experts, generator=source).softmax(-1)
    weights, ids = scores.topk(topk, dim=-1)
    return hidden, w1, w2, weights.float(), ids.int()


def plain_moe(hidden, w1, w2, weights, ids):
    out = torch.zeros(hidden.shape, dtype=torch.float64)
    for token, (expert_ids, expert_weights) in enumerate(
        zip(ids.tolist(), weights.double(), strict=True)
    ):
        for expert, weight in zip(expert_ids, expert_weights, strict=True):
            gate, up = (w1[expert].double() @ hidden[token].double()).chunk(2)
            out[token] += weight * (w2[expert].double() @ (torch.nn.functional.silu(gate) * up))
    return out


def kernel(hidden, w1, w2, weights, ids, expert_map=None, *, on_input=False):  # noqa: PLR0917 (vLLM's order)
    # The method reads four attributes of its object; the object itself needs a whole vLLM
    # configuration.
    this = SimpleNamespace(_use_zentorch=False, w1_bias=None, w2_bias=None, isa="vec")
    out = torch.full_like(hidden, float("nan"))
    packed = [cpu_prepack_moe_weight(w, "vec") if w.shape[0] else w for w in (w1, w2)]
    cpu_moe.CPUUnquantizedExperts.apply(
        *(this, out, hidden, *packed, weights, ids, MoEActivation.SILU, w1.shape[0], expert_map),
        *(None, None, None, None, None, on_input),
    )
    return out


def sum_over_ranks(ranks, case, placement="linear"):
    hidden, w1, w2, weights, ids = case
    total = torch.zeros(hidden.shape, dtype=torch.float64)
    for rank in range(ranks):
        n_local, expert_map, _ = determine_expert_map(ranks, rank, w1.shape[0], placement)
        held = (
            torch.arange(w1.shape[0])
            if expert_map is None
            else (expert_map >= 0).nonzero().flatten()
        )
        assert len(held) == n_local
        total += kernel(hidden, w1[held], w2[held], weights, ids, expert_map).double()
    return total


def ranks_add_up_to_the_whole_layer(n_experts, ranks, topk=2, placement="linear"):
    case = moe_case(n_experts, topk, torch.float32)
    torch.testing.assert_close(
        sum_over_ranks(ranks, case, placement), plain_moe(*case), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        sum_over_ranks(ranks, case, placement).float(), kernel(*case), rtol=1e-5, atol=1e-5
    )


def ranks_add_up_in_bfloat16(n_experts, ranks):
    case = moe_case(n_experts, 2, torch.bfloat16)
    torch.testing.assert_close(sum_over_ranks(ranks, case), plain_moe(*case), rtol=0.05, atol=0.05)


def no_tokens_give_no_output():
    hidden, w1, w2, weights, ids = moe_case(4, 2, torch.float32)
    expert_map = torch.tensor([0, 1, -1, -1], dtype=torch.int32)
    assert kernel(hidden[:0], w1[:2], w2[:2], weights[:0], ids[:0], expert_map).shape == (0, HIDDEN)


def unused_slots_count_nothing():
    ids, weights = experts.to_local(
        torch.tensor([[3, -1]], dtype=torch.int32),
        torch.tensor([[0.5, 0.5]]),
        torch.tensor([-1, -1, 0, 1], dtype=torch.int32),
    )
    assert (ids.tolist(), weights.tolist(), ids.dtype) == ([[1, 0]], [[0.5, 0.0]], torch.int32)


def without_an_expert_map_the_kernel_is_as_it_was():
    hidden, w1, w2, weights, ids = moe_case(8, 2, torch.float32)
    direct = torch.empty_like(hidden)
    packed = [cpu_prepack_moe_weight(w, "vec") for w in (w1, w2)]
    cpu_fused_moe(direct, hidden, *packed, None, None, weights, ids, "silu", "vec")
    torch.testing.assert_close(kernel(hidden, w1, w2, weights, ids), direct, rtol=0, atol=0)


def weights_on_the_input_are_refused():
    case = moe_case(4, 1, torch.float32)
    expert_map = torch.tensor([0, 1, -1, -1], dtype=torch.int32)
    raises(
        experts.UnsupportedExpertsError,
        "apply_router_weight_on_input",
        kernel,
        *case,
        expert_map,
        on_input=True,
    )


def quantized_experts_are_refused_with_expert_parallelism():
    names = {cls.__name__ for cls in experts.uncovered(cpu_moe)}
    assert {"CPUExpertsFp8", "CPUExpertsMxfp4", "CPUExpertsInt4", "CPUExpertsInt8"} <= names, names
    for cls in experts.uncovered(cpu_moe):
        parallel = SimpleNamespace(use_ep=True, ep_size=2)
        alone = SimpleNamespace(use_ep=False, ep_size=1)
        assert not cls._supports_parallel_config(parallel), cls
        assert cls._supports_parallel_config(alone), cls
        tensor_names = ("output", "hidden_states", "w1", "w2", "topk_weights", "topk_ids")
        given = {name: torch.ones(1) for name in tensor_names}
        given |= {"activation": None, "global_num_experts": 1, "expert_map": torch.zeros(1)}
        rest = [
            n for n in compatibility.SIGNATURES[compatibility.EXPERTS, "apply"] if n not in given
        ]
        given |= dict.fromkeys([n for n in rest if n != "self"])
        raises(experts.UnsupportedExpertsError, cls.__name__, cls.apply, SimpleNamespace(), **given)


# --- installation ----------------------------------------------------------------------------


def another_release_is_refused_by_name():
    real = importlib.metadata.version
    importlib.metadata.version = lambda _name: "0.33.0+cpu"
    try:
        raises(compatibility.UnsupportedVllmError, "this is vLLM 0.33.0", compatibility.check)
    finally:
        importlib.metadata.version = real


def a_changed_signature_is_refused():
    original = CpuCommunicator.all_gatherv
    CpuCommunicator.all_gatherv = lambda _self, tensors: tensors
    try:
        raises(compatibility.UnsupportedVllmError, "all_gatherv takes", compatibility.check)
    finally:
        CpuCommunicator.all_gatherv = original


def registering_twice_changes_nothing():
    before = (
        CpuCommunicator.all_gatherv,
        cpu_moe.CPUUnquantizedExperts.apply,
        cpu_moe.CPUExpertsFp8.apply,
    )
    vllm_cpu_ep.register()
    assert before == (
        CpuCommunicator.all_gatherv,
        cpu_moe.CPUUnquantizedExperts.apply,
        cpu_moe.CPUExpertsFp8.apply,
    )


def processes_are_forked_only_where_the_environment_asks_for_it():
    original = CpuPlatform.__dict__["check_and_update_config"]
    os.environ.pop(start_method.VARIABLE, None)
    assert start_method.install() == []
    os.environ[start_method.VARIABLE] = "fork"
    try:
        assert start_method.install() == ["engine processes forked"]
        assert start_method.install() == []
        compatibility.check()
    finally:
        CpuPlatform.check_and_update_config = original
        del os.environ[start_method.VARIABLE]


def nixl_gets_the_delay_that_the_environment_names():
    os.environ[nixl.DELAY_VARIABLE] = "1500"
    _api = importlib.import_module("nixl_cu13._api")

    seen = []
    real = _api.nixlBind.nixlAgent
    _api.nixlBind.nixlAgent = lambda _name, config: (
        seen.append(config.pthrDelay) or real(_name, config)
    )
    try:
        nixl.apply_progress_delay()
        _api.nixl_agent("probe", _api.nixl_agent_config(backends=[]))
    finally:
        _api.nixlBind.nixlAgent = real
        del os.environ[nixl.DELAY_VARIABLE]
    assert seen == [1500], seen


def a_delay_that_is_no_number_is_refused():
    for value, expected in (("", 0), (" 0 ", 0), ("1000", 1000)):
        assert nixl.delay_from(value) == expected
    for value in ("1ms", "-1", "0.5"):
        raises(ValueError, value, nixl.delay_from, value)


# --- the runner ------------------------------------------------------------------------------


def raises(kind, words, function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except kind as error:
        said = str(error)
    else:
        said = f"no {kind.__name__}"
    assert words in said, f"{words!r} not in {said!r}"


def outcome(function, *args):
    try:
        function(*args)
    except BaseException:  # noqa: BLE001 (any fault of a check is its outcome)
        return traceback.format_exc()
    return "passed"


def one_rank(rank, world, rendezvous, results):
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    group = CpuCommunicator(dist.group.WORLD, torch.device("cpu"), dist.group.WORLD, "ep:0")
    results.put((rank, {f.__name__: outcome(f, rank, world, group) for f in COLLECTIVES}))
    dist.barrier()


def collectives(world):
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            fork.Process(target=one_rank, args=(r, world, f"{folder}/meet", results))
            for r in range(world)
        ]
        for process in ranks:
            process.start()
        answers = dict(results.get(timeout=60) for _ in ranks)
        for process in ranks:
            process.join(30)
    for check in COLLECTIVES:
        failed = {
            rank: a[check.__name__] for rank, a in answers.items() if a[check.__name__] != "passed"
        }
        yield f"{check.__name__}[{world}]", str(failed) if failed else "passed"


def main():
    torch.set_num_threads(1)
    vllm_cpu_ep.register()
    found = {}
    for world in WORLDS:
        found.update(collectives(world))
    for n_experts, ranks in ((8, 1), (8, 2), (8, 3), (8, 4), (5, 2), (7, 4), (3, 4), (128, 3)):
        found[f"layer[{n_experts}-{ranks}]"] = outcome(
            ranks_add_up_to_the_whole_layer, n_experts, ranks
        )
        found[f"layer_bfloat16[{n_experts}-{ranks}]"] = outcome(
            ranks_add_up_in_bfloat16, n_experts, ranks
        )
    found["layer_round_robin"] = outcome(ranks_add_up_to_the_whole_layer, 8, 2, 4, "round_robin")
    for check in (
        no_tokens_give_no_output,
        unused_slots_count_nothing,
        without_an_expert_map_the_kernel_is_as_it_was,
        weights_on_the_input_are_refused,
        quantized_experts_are_refused_with_expert_parallelism,
        another_release_is_refused_by_name,
        a_changed_signature_is_refused,
        registering_twice_changes_nothing,
        processes_are_forked_only_where_the_environment_asks_for_it,
        nixl_gets_the_delay_that_the_environment_names,
        a_delay_that_is_no_number_is_refused,
    ):
        found[check.__name__] = outcome(check)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
