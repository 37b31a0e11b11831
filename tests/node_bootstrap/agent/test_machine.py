"""Metrics of the machine, from the kernel's files as they are on a node with EFA."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from node_bootstrap.agent.machine import MachineCollector, cpu, memory, network

STAT = """\
cpu  200 10 100 4000 50 0 5 1 0 0
cpu0 100 5 50 2000 25 0 3 1 0 0
cpu1 100 5 50 2000 25 0 2 0 0 0
intr 1 2 3
"""
NET = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0
  ens5: 7000000    5000    1    2    0     0          0         0  9000000    6000    3    4    0
"""


def samples(metrics):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in metrics
        for sample in metric.samples
    }


def test_processors_are_summed_in_seconds() -> None:
    found = samples(cpu(STAT, 100))
    assert found["node_cpu_seconds_total", "user"] == 2.0
    assert found["node_cpu_seconds_total", "idle"] == 40.0
    assert found["node_cpus",] == 2


def test_memory_is_in_bytes() -> None:
    found = samples(memory("MemTotal:  2048 kB\nMemAvailable:    1024 kB\nSlab: 5 kB\n"))
    assert found == {
        ("node_memory_MemTotal_bytes",): 2097152,
        ("node_memory_MemAvailable_bytes",): 1048576,
    }


def test_every_interface_but_loopback_has_its_bytes_errors_and_drops() -> None:
    assert samples(network(NET)) == {
        ("node_network_receive_bytes_total", "ens5"): 7000000,
        ("node_network_receive_errs_total", "ens5"): 1,
        ("node_network_receive_drop_total", "ens5"): 2,
        ("node_network_transmit_bytes_total", "ens5"): 9000000,
        ("node_network_transmit_errs_total", "ens5"): 3,
        ("node_network_transmit_drop_total", "ens5"): 4,
    }


def test_rdma_counters_have_the_kernels_names_with_device_and_port(tmp_path) -> None:
    for device, value in (("rdmap0s6", "123456789012"), ("rdmap1s6", "5")):
        port = tmp_path / f"sys/class/infiniband/{device}/ports/1/hw_counters"
        port.mkdir(parents=True)
        (port / "rdma_read_bytes").write_text(f"{value}\n")
        (port / "lifespan").write_text("N/A (no PMA)\n")
    found = samples(MachineCollector(tmp_path).collect())
    assert found["node_infiniband_rdma_read_bytes_total", "rdmap0s6", "1"] == 123456789012
    assert found["node_infiniband_rdma_read_bytes_total", "rdmap1s6", "1"] == 5
    assert not [key for key in found if "lifespan" in key[0]]


def test_disks_count_in_bytes_and_loop_devices_are_none(tmp_path) -> None:
    for name in ("nvme0n1", "loop0"):
        (tmp_path / "sys/block" / name).mkdir(parents=True)
        (tmp_path / "sys/block" / name / "stat").write_text(" 10 0 2000 5 20 0 4000 9 0 8 14\n")
    found = samples(MachineCollector(tmp_path).collect())
    assert found["node_disk_read_bytes_total", "nvme0n1"] == 1024000
    assert found["node_disk_written_bytes_total", "nvme0n1"] == 2048000
    assert ("node_disk_read_bytes_total", "loop0") not in found


def test_this_machine_has_all_of_it_in_the_form_of_prometheus() -> None:
    registry = CollectorRegistry()
    registry.register(MachineCollector())
    text = generate_latest(registry).decode()
    for name in (
        'node_cpu_seconds_total{mode="user"} ',
        "node_load1 ",
        "node_memory_MemAvailable_bytes ",
        "node_filesystem_avail_bytes{",
    ):
        assert name in text
