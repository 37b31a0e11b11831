"""The plugin beside plain PyTorch; what each check does stands in checks_in_runtime.py."""

import pytest

pytestmark = pytest.mark.e2e  # may build the vLLM runtime (a minute)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "check",
    [
        "gathers_a_tensor",
        "gathers_a_list_of_tensors",
        "gathers_equal_parts_without_sizes",
        "gathers_along_another_dimension",
        "scatters_the_sum",
        "scatters_equal_parts_of_the_last_dimension_by_default",
        "refuses_sizes_that_do_not_fit",
    ],
)
def test_collectives_equal_plain_torch(outcomes, check, ranks):
    assert outcomes[f"{check}[{ranks}]"] == "passed"


@pytest.mark.parametrize("dtype", ["", "_bfloat16"])
@pytest.mark.parametrize(
    "experts_and_ranks", ["8-1", "8-2", "8-3", "8-4", "5-2", "7-4", "3-4", "128-3"]
)
def test_parts_of_all_ranks_add_up_to_the_whole_layer(outcomes, experts_and_ranks, dtype):
    assert outcomes[f"layer{dtype}[{experts_and_ranks}]"] == "passed"


@pytest.mark.parametrize(
    "check",
    [
        "layer_round_robin",
        "no_tokens_give_no_output",
        "unused_slots_count_nothing",
        "without_an_expert_map_the_kernel_is_as_it_was",
        "weights_on_the_input_are_refused",
        "quantized_experts_are_refused_with_expert_parallelism",
    ],
)
def test_experts(outcomes, check):
    assert outcomes[check] == "passed"


@pytest.mark.parametrize(
    "check",
    [
        "another_release_is_refused_by_name",
        "a_changed_signature_is_refused",
        "registering_twice_changes_nothing",
        "processes_are_forked_only_where_the_environment_asks_for_it",
        "nixl_gets_the_delay_that_the_environment_names",
        "a_delay_that_is_no_number_is_refused",
    ],
)
def test_registration(outcomes, check):
    assert outcomes[check] == "passed"


def test_every_check_that_ran_is_named_here(outcomes):
    assert len(outcomes) == 7 * 4 + 2 * 8 + 6 + 6
