from __future__ import annotations

import pytest

from infra import catalog
from infra.plan import topology


def test_nodes_are_named_by_group_replica_and_index(group_request):
    replicas = topology.lay_out(group_request(replicas=2))
    assert [r.name for r in replicas] == ["serve-0", "serve-1"]
    assert [n.name for n in replicas[1].nodes] == ["serve-1-0", "serve-1-1"]


def test_the_first_node_is_the_primary(group_request):
    (replica,) = topology.lay_out(group_request(nodes=3))
    assert [n.position for n in replica.nodes] == ["primary", "headless", "headless"]
    assert replica.primary.first_rank == 0


def test_ranks_are_dense_over_nodes(group_request):
    (replica,) = topology.lay_out(group_request(nodes=3, data_parallel_size_local=2))
    assert [(n.first_rank, n.ranks) for n in replica.nodes] == [(0, 2), (2, 2), (4, 2)]
    assert replica.data_parallel_size == replica.expert_parallel_size == 6


def test_without_expert_parallelism_every_rank_holds_all_experts(group_request):
    (replica,) = topology.lay_out(group_request(enable_expert_parallel=False))
    assert (replica.data_parallel_size, replica.expert_parallel_size) == (2, 1)


def test_every_replica_has_its_own_addresses(group_request):
    replicas = topology.lay_out(group_request(replicas=2))
    addresses = {node.address for replica in replicas for node in replica.nodes}
    assert len(addresses) == 4
    assert "${SERVE_1_0_ADDRESS}" in addresses


def test_a_cpu_node_has_one_plain_interface():
    (only,) = topology.network_interfaces(catalog.instance_type("c7i.large"))
    assert (only.network_card_index, only.device_index, only.interface_type) == (0, 0, "interface")


def test_a_node_must_find_its_vcpus_and_most_of_its_memory(group_request):
    (replica,) = topology.lay_out(group_request())
    found = topology.hardware(catalog.instance_type("c7i.large"), replica.primary)
    assert (found.cpus_min, found.memory_gib_min) == (2, 3.6)


def test_unknown_instance_type_names_its_neighbours(group_request):
    with pytest.raises(catalog.UnknownNameError, match=r"c7i\.large"):
        topology.lay_out(group_request(instance_type="c7i.larg"))
