"""The life of instances, and that it leaves this machine as it was."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from rehearsal import machine
from rehearsal.machine import faults, netns
from rehearsal.machine.instance import Folder
from rehearsal.machine.interface import MachineError

pytestmark = pytest.mark.e2e

BOOT_ID = ("cat", "/proc/sys/kernel/random/boot_id")


def test_a_node_that_powers_itself_off_is_stopped_and_starts_with_its_disk(empty_cloud, wait):
    node = empty_cloud.launch(1)
    assert empty_cloud.containers.state(node) in ("pending", "running")
    empty_cloud.wait_for_boot(node)
    first_boot = empty_cloud.run(node, *BOOT_ID)
    empty_cloud.run(node, "sh", "-c", "echo kept >/root/note; sync")
    faults.run(empty_cloud.home, node, ["systemctl", "poweroff"])
    empty_cloud.wait_for_state(node, "stopped")
    wait(lambda: node in empty_cloud.changes, 5, "word of the change")
    with pytest.raises(MachineError, match="powered itself off"):
        machine.enter(empty_cloud.home, node, ["true"])

    empty_cloud.containers.start(node)
    empty_cloud.wait_for_boot(node)
    assert empty_cloud.run(node, "cat", "/root/note") == "kept"
    assert empty_cloud.run(node, *BOOT_ID) != first_boot


def test_a_node_restarts_from_inside_and_on_demand(empty_cloud, wait):
    node = empty_cloud.launch(1)
    empty_cloud.wait_for_boot(node)
    boots = {empty_cloud.run(node, *BOOT_ID)}
    for restart in (
        lambda: faults.run(empty_cloud.home, node, ["systemctl", "reboot"]),
        lambda: empty_cloud.containers.reboot(node),
    ):
        restart()
        wait(lambda: boot_id(empty_cloud, node) not in boots | {""}, 45, "the next boot")
        empty_cloud.wait_for_boot(node)
        assert empty_cloud.containers.state(node) == "running"
        boots.add(empty_cloud.run(node, *BOOT_ID))
    assert len(boots) == 3


def boot_id(cloud, node: str) -> str:
    try:
        return faults.run(cloud.home, node, BOOT_ID, timeout_s=5).stdout.strip()
    except (MachineError, subprocess.TimeoutExpired):
        return ""  # it is down, or ends while it is asked


@pytest.mark.parametrize("force", [False, True])
def test_a_node_is_stopped_even_before_it_listens(empty_cloud, force):
    node = empty_cloud.launch(1)
    empty_cloud.containers.stop(node, force=force)
    empty_cloud.wait_for_state(node, "stopped")


def test_a_pulled_plug_stops_a_node(empty_cloud):
    node = empty_cloud.launch(1)
    empty_cloud.wait_for_state(node, "running")
    faults.power_off(empty_cloud.home, node)
    empty_cloud.wait_for_state(node, "stopped")


def test_a_node_does_not_outlive_its_keeper(empty_cloud, wait):
    node = empty_cloud.launch(1)
    empty_cloud.wait_for_state(node, "running")
    keeper = Folder(empty_cloud.home.instances / node).supervisor_pid()
    os.kill(keeper, signal.SIGKILL)
    empty_cloud.wait_for_state(node, "stopped")
    wait(lambda: faults.processes(empty_cloud.home, node) == [], 10, "the end of its processes")
    empty_cloud.containers.start(node)
    empty_cloud.wait_for_boot(node)


def test_nodes_of_two_subnets_meet_in_one_vpc(empty_cloud):
    first, second = empty_cloud.launch(1, subnet=1), empty_cloud.launch(1, subnet=2)
    for node in (first, second):
        empty_cloud.wait_for_boot(node)
    assert empty_cloud.run(second, "ip", "-4", "-o", "address", "show", "ens5").split()[3] == (
        "10.77.2.11/24"
    )
    assert "10.77.2.11" in empty_cloud.run(first, "getent", "hosts", "ip-10-77-2-11.ec2.internal")


def test_an_address_is_taken_over_by_the_next_instance(empty_cloud):
    first = empty_cloud.launch(1)
    empty_cloud.wait_for_boot(first)
    empty_cloud.launch(2)
    empty_cloud.containers.terminate(first)
    empty_cloud.wait_for_state(first, "terminated")
    again = empty_cloud.launch(1)
    assert again == first
    empty_cloud.wait_for_boot(again)


def test_terminated_nodes_leave_the_machine_as_it_was(empty_cloud, wait, outer_machine):
    before = outer_machine(empty_cloud.home)
    nodes = [empty_cloud.launch(1), empty_cloud.launch(2)]
    for node in nodes:
        empty_cloud.wait_for_state(node, "running")
    assert [x for x in machine.leftovers(empty_cloud.home.tag) if x.startswith("route")]
    for node in nodes:
        empty_cloud.containers.terminate(node)
    for node in nodes:
        empty_cloud.wait_for_state(node, "terminated")
    wait(lambda: machine.leftovers(empty_cloud.home.tag) == [], 10, "an empty machine")
    assert outer_machine(empty_cloud.home) == before
    assert sorted(path.name for path in empty_cloud.home.instances.iterdir()) == ["events"]


def test_sweeping_ends_what_runs_and_leaves_the_machine_as_it_was(empty_cloud, outer_machine):
    before = outer_machine(empty_cloud.home)
    empty_cloud.wait_for_state(empty_cloud.launch(1), "running")
    kinds = {line.split()[0] for line in machine.leftovers(empty_cloud.home.tag)}
    assert kinds == {"process", "network", "link", "route", "cgroup", "mount"}
    empty_cloud.containers.close()
    machine.sweep(empty_cloud.home.tag)
    assert machine.leftovers(empty_cloud.home.tag) == []
    assert outer_machine(empty_cloud.home) == before
    empty_cloud.open()


def test_a_termination_that_was_begun_is_finished_by_the_next_account(empty_cloud, wait):
    node = empty_cloud.launch(1)
    empty_cloud.wait_for_state(node, "running")
    empty_cloud.containers.close()
    Folder(empty_cloud.home.instances / node).condemn()
    empty_cloud.open()
    empty_cloud.wait_for_state(node, "terminated")
    wait(lambda: machine.leftovers(empty_cloud.home.tag) == [], 10, "an empty machine")


def test_a_vpc_that_collides_with_a_route_is_refused_and_nothing_is_left(empty_cloud):
    netns.ip(
        ["link add moe-e2e-route type veth peer name moe-e2e-peer", "link set moe-e2e-route up"]
    )
    try:
        netns.ip(["route add 10.77.0.0/16 dev moe-e2e-route"])
        with pytest.raises(MachineError, match=r"10\.77\.0\.0/16 collide"):
            empty_cloud.launch(1)
        assert machine.leftovers(empty_cloud.home.tag) == []
        assert empty_cloud.containers.state(empty_cloud.FIRST.instance_id) == "terminated"
    finally:
        netns.ip(["link delete moe-e2e-route"])
