from __future__ import annotations

import pytest

from infra import catalog
from infra.plan import topology
from infra.plan.nics import NetworkInterface


@pytest.fixture
def replicas_of(group_request):
    def lay_out(**changes) -> tuple[topology.GroupPlace, ...]:
        request = group_request(**changes)
        size, experts = request.tensor_parallel_size, request.enable_expert_parallel
        cut = topology.geometry(request, tensor_parallel_size=size, enable_expert_parallel=experts)
        return topology.lay_out(request, cut)

    return lay_out


GPU = {"instance_type": "p5en.48xlarge", "data_parallel_size_local": None}


def test_nodes_are_named_by_group_replica_and_index(replicas_of):
    replicas = replicas_of(replicas=2)
    assert [r.name for r in replicas] == ["serve-0", "serve-1"]
    assert [n.name for n in replicas[1].nodes] == ["serve-1-0", "serve-1-1"]


def test_the_first_node_is_the_primary(replicas_of):
    (replica,) = replicas_of(nodes=3)
    assert [n.position for n in replica.nodes] == ["primary", "headless", "headless"]
    assert replica.primary.first_rank == 0


@pytest.mark.parametrize("mode", ["hybrid", "external"])
def test_further_nodes_have_an_api_of_their_own_unless_load_balancing_is_internal(
    replicas_of, mode: str
):
    (replica,) = replicas_of(load_balancing=mode)
    assert [n.position for n in replica.nodes] == ["primary", "secondary"]


def test_ranks_are_dense_over_nodes(replicas_of):
    (replica,) = replicas_of(nodes=3, data_parallel_size_local=2)
    assert [(n.first_rank, n.ranks) for n in replica.nodes] == [(0, 2), (2, 2), (4, 2)]
    assert replica.cut.data_parallel_size == replica.cut.expert_parallel_size == 6


def test_without_expert_parallelism_nothing_is_spread(replicas_of):
    (replica,) = replicas_of(enable_expert_parallel=False)
    assert (replica.cut.data_parallel_size, replica.cut.expert_parallel_size) == (2, 1)


@pytest.mark.parametrize(("tp", "local"), [(1, 8), (2, 4), (8, 1)])
def test_ranks_of_a_node_are_its_gpus_over_tensor_parallel_size(replicas_of, tp: int, local: int):
    (replica,) = replicas_of(**GPU, tensor_parallel_size=tp)
    assert replica.cut.data_parallel_size_local == local
    assert replica.cut.expert_parallel_size == 16


def test_fewer_ranks_than_gpus_are_taken(replicas_of):
    (replica,) = replicas_of(**(GPU | {"data_parallel_size_local": 4}))
    assert replica.cut.data_parallel_size == 8


def test_tensor_parallelism_above_the_gpus_of_a_node_spans_nodes(replicas_of):
    (replica,) = replicas_of(**GPU, tensor_parallel_size=16)
    cut = replica.cut
    assert (cut.tensor_parallel_nodes, cut.data_parallel_size, cut.gpus) == (2, 1, 16)
    assert [(n.first_rank, n.ranks) for n in replica.nodes] == [(0, 1), (0, 0)]


def test_every_replica_has_its_own_addresses(replicas_of):
    replicas = replicas_of(replicas=2)
    addresses = {node.address for replica in replicas for node in replica.nodes}
    assert len(addresses) == 4
    assert "${SERVE_1_0_ADDRESS}" in addresses


@pytest.mark.parametrize("name", ["c7i.large", "c7i.48xlarge"])
def test_a_cpu_node_has_one_plain_interface(name: str):
    nics = topology.interfaces(catalog.instance_type(name))
    assert nics.interfaces == (NetworkInterface(0, 0, "interface"),)


def test_a_gpu_node_has_all_the_efa_of_its_type():
    assert topology.interfaces(catalog.instance_type("p5.48xlarge")).efa_count == 32


TRANSPORTS = [
    ("c7i.large", 2, "none"),
    ("p5en.48xlarge", 1, "nvlink"),
    ("p5en.48xlarge", 2, "efa"),
    ("g6e.48xlarge", 1, "pcie"),
    ("g6e.2xlarge", 2, "tcp"),
]


@pytest.mark.parametrize(("name", "nodes", "carries"), TRANSPORTS)
def test_what_carries_tokens(name: str, nodes: int, carries: str):
    assert topology.transport(catalog.instance_type(name), nodes) == carries


def test_a_node_must_find_its_vcpus_and_most_of_its_memory(replicas_of):
    (replica,) = replicas_of()
    found = topology.hardware(catalog.instance_type("c7i.large"), replica.primary, "")
    assert (found.cpus_min, found.memory_gib_min) == (2, 3.6)
    assert (found.gpu_count, found.efa_devices, found.nvlink) == (0, 0, False)


def test_a_gpu_node_must_find_what_its_type_has(replicas_of):
    (replica,) = replicas_of()
    found = topology.hardware(catalog.instance_type("p5en.48xlarge"), replica.primary, "580")
    assert (found.gpu_count, found.gpu_name, found.gpu_memory_mib) == (8, "H200", 144384)
    assert (found.efa_devices, found.nvlink, found.local_disks) == (16, True, 8)
    assert found.driver_min == "580"


def test_a_type_with_gpus_on_pcie_is_not_asked_for_nvlink(replicas_of):
    (replica,) = replicas_of()
    assert not topology.hardware(catalog.instance_type("g6e.12xlarge"), replica.primary, "").nvlink


def test_unknown_instance_type_names_its_neighbours(replicas_of):
    with pytest.raises(catalog.UnknownNameError, match=r"c7i\.large"):
        replicas_of(instance_type="c7i.larg")


def test_the_level_of_dcgms_diagnosis_reaches_nodes_with_gpus_alone(replicas_of):
    (replica,) = replicas_of()
    for name, level in (("p5en.48xlarge", 2), ("c7i.large", 0)):
        found = topology.hardware(catalog.instance_type(name), replica.primary, "", dcgm_level=2)
        assert found.dcgm_level == level
