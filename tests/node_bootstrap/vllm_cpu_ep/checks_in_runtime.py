"""Checks of the plugin against plain PyTorch: prints one JSON line with all outcomes.

The vLLM runtime's Python runs it, where there is no pytest; those of the collectives stand in
collectives_in_runtime.py.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import importlib
import importlib.metadata
import json
import os
from types import SimpleNamespace

import torch
import vllm_cpu_ep
from collectives_in_runtime import collectives
from outcomes import outcome, raises
from vllm._custom_ops import cpu_fused_moe, cpu_prepack_moe_weight
from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.expert_map_manager import determine_expert_map
from vllm.model_executor.layers.fused_moe.experts import cpu_moe
from vllm.platforms.cpu import CpuPlatform
from vllm_cpu_ep import compatibility, experts, nixl, start_method

WORLDS = (1, 2, 3, 4)
HIDDEN, EXPERT_HIDDEN, TOKENS = 64, 96, 21


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
