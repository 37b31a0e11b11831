"""Two real nodes: what they know, whom they reach."""

from __future__ import annotations

import json

import pytest

from rehearsal import machine
from rehearsal.machine import cgroups, faults
from rehearsal.machine.interface import MachineError, Rule

pytestmark = pytest.mark.e2e

IMDS = "http://169.254.169.254/latest"
TOKEN = f"curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {IMDS}/api/token"


def metadata(cloud, path: str) -> str:
    script = f'curl -sf -H "X-aws-ec2-metadata-token: $({TOKEN})" {IMDS}/{path}'
    return cloud.run(cloud.FIRST.instance_id, "sh", "-c", script)


def allow_all(*addresses: str) -> list[Rule]:
    return [
        Rule(address, direction, "-1", 0, 0, ("0.0.0.0/0",))
        for address in addresses
        for direction in ("ingress", "egress")
    ]


def test_cloud_init_finds_ec2_and_does_what_user_data_says(cloud):
    status = json.loads(
        cloud.run(cloud.FIRST.instance_id, "cloud-init", "status", "--format", "json")
    )
    assert (status["status"], status["errors"]) == ("done", [])
    assert status["datasource"] == "ec2local"
    page = cloud.run(cloud.FIRST.instance_id, "cat", "/opt/hello/index.html")
    assert page == "hello from user data"


def test_systemd_is_up_without_a_failed_unit(cloud, wait):
    wait(
        lambda: (
            faults.run(
                cloud.home, cloud.FIRST.instance_id, ["systemctl", "is-system-running"]
            ).stdout
            == "running\n"
        ),
        20,
        "a running system",
    )


def test_a_node_knows_its_identity_over_a_token(cloud):
    assert metadata(cloud, "meta-data/instance-id") == cloud.FIRST.instance_id
    document = json.loads(metadata(cloud, "dynamic/instance-identity/document"))
    assert document["instanceId"] == cloud.FIRST.instance_id


def test_metadata_without_a_token_is_refused(cloud):
    argv = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{IMDS}/meta-data/"]
    assert cloud.run(cloud.FIRST.instance_id, *argv) == "401"


def test_the_account_is_reached_from_inside_and_sees_the_nodes_address(cloud):
    url = "http://169.254.169.252:4566/"
    assert cloud.run(cloud.FIRST.instance_id, "curl", "-sf", url) == "account sees 10.77.1.11"


def test_every_unit_finds_the_account(cloud):
    environment = cloud.run(cloud.FIRST.instance_id, "systemd-run", "--pipe", "--wait", "-q", "env")
    assert "AWS_ENDPOINT_URL=http://169.254.169.252:4566" in environment.splitlines()


def test_nodes_know_each_other_by_name(cloud):
    found = cloud.run(cloud.FIRST.instance_id, "getent", "hosts", cloud.SECOND.hostname)
    assert found.split()[0] == cloud.SECOND.private_ip
    assert cloud.run(cloud.FIRST.instance_id, "hostname", "-f") == cloud.FIRST.hostname


def test_without_rules_nodes_do_not_reach_each_other(cloud):
    cloud.allow()
    assert not cloud.reaches(cloud.FIRST.instance_id, cloud.SECOND.private_ip)
    assert not cloud.reaches(None, cloud.FIRST.private_ip)


def test_both_sides_must_allow_a_flow_between_nodes(cloud):
    out = Rule(cloud.FIRST.private_ip, "egress", "tcp", 8000, 8000, ("10.77.1.12/32",))
    into = Rule(cloud.SECOND.private_ip, "ingress", "tcp", 8000, 8000, ("10.77.1.11/32",))
    cloud.allow(out)
    assert not cloud.reaches(cloud.FIRST.instance_id, cloud.SECOND.private_ip)
    cloud.allow(into)
    assert not cloud.reaches(cloud.FIRST.instance_id, cloud.SECOND.private_ip)
    cloud.allow(out, into)
    assert cloud.reaches(cloud.FIRST.instance_id, cloud.SECOND.private_ip)
    assert not cloud.reaches(cloud.SECOND.instance_id, cloud.FIRST.private_ip)


def test_the_port_of_a_rule_is_meant(cloud):
    cloud.allow(
        *allow_all(cloud.FIRST.private_ip),
        Rule(cloud.SECOND.private_ip, "ingress", "tcp", 8001, 8001, ("0.0.0.0/0",)),
    )
    assert not cloud.reaches(cloud.FIRST.instance_id, cloud.SECOND.private_ip)


def test_this_machine_reaches_a_node_where_ingress_allows_it(cloud):
    cloud.allow(Rule(cloud.FIRST.private_ip, "ingress", "tcp", 8000, 8000, ("198.18.0.0/15",)))
    assert cloud.reaches(None, cloud.FIRST.private_ip)
    assert not cloud.reaches(None, cloud.SECOND.private_ip)


def test_a_node_can_not_send_from_anothers_address(cloud):
    cloud.allow(*allow_all(cloud.FIRST.private_ip, cloud.SECOND.private_ip, "10.77.1.99"))
    cloud.run(cloud.FIRST.instance_id, "ip", "address", "add", "10.77.1.99/32", "dev", "ens5")
    try:
        url = f"http://{cloud.SECOND.private_ip}:8000/"
        stolen = ["curl", "-s", "-m", "2", "--interface", "10.77.1.99", url]
        assert faults.run(cloud.home, cloud.FIRST.instance_id, stolen).returncode != 0
        assert cloud.reaches(cloud.FIRST.instance_id, cloud.SECOND.private_ip)
    finally:
        cloud.run(cloud.FIRST.instance_id, "ip", "address", "del", "10.77.1.99/32", "dev", "ens5")


def test_nothing_beyond_the_vpc_is_reached(cloud):
    cloud.allow(*allow_all(cloud.FIRST.private_ip))
    assert not cloud.reaches(cloud.FIRST.instance_id, "192.0.2.1", 80)


def test_a_cut_link_is_silent_and_comes_back(cloud, wait):
    cloud.allow(*allow_all(cloud.FIRST.private_ip, cloud.SECOND.private_ip))
    assert cloud.reaches(cloud.FIRST.instance_id, cloud.SECOND.private_ip)
    faults.cut_link(cloud.home, cloud.SECOND.instance_id)
    assert not cloud.reaches(cloud.FIRST.instance_id, cloud.SECOND.private_ip)
    assert "state UP" in cloud.run(cloud.SECOND.instance_id, "ip", "link", "show", "ens5")
    faults.restore_link(cloud.home, cloud.SECOND.instance_id)
    wait(lambda: cloud.reaches(cloud.FIRST.instance_id, cloud.SECOND.private_ip), 10, "the link")


def test_killing_hits_what_matches_and_says_so_if_nothing_does(cloud, wait):
    cloud.run(cloud.FIRST.instance_id, "systemd-run", "--unit=victim", "sleep", "1234")
    wait(lambda: has_process(cloud, "sleep 1234"), 10, "the victim")
    assert len(faults.kill(cloud.home, cloud.FIRST.instance_id, r"sleep 1234")) == 1
    wait(lambda: not has_process(cloud, "sleep 1234"), 10, "its end")
    with pytest.raises(MachineError, match="sleep 1234"):
        faults.kill(cloud.home, cloud.FIRST.instance_id, "sleep 1234")


def has_process(cloud, line: str) -> bool:
    lines = [found for _, found in faults.processes(cloud.home, cloud.FIRST.instance_id)]
    return any(found.endswith(line) for found in lines)


def test_a_command_runs_inside_with_its_exit_status(cloud):
    assert machine.enter(cloud.home, cloud.FIRST.instance_id, ["sh", "-c", "exit 7"]) == 7
    with pytest.raises(MachineError, match=f"there are: .*{cloud.FIRST.instance_id}"):
        machine.enter(cloud.home, "i-unknown", ["true"])


def test_the_console_tells_the_boot(cloud):
    assert b"Cloud-init v." in cloud.containers.console(cloud.FIRST.instance_id)


def test_a_node_has_the_memory_of_its_type(cloud):
    branches = [
        root / f"moe-{cloud.home.tag}" / cloud.FIRST.instance_id
        for root in cgroups.hierarchies().roots
    ]
    limits = [
        (branch / name).read_text().strip()
        for branch in branches
        for name in ("memory.max", "memory.limit_in_bytes")
        if (branch / name).exists()
    ]
    assert limits == [str(1024 << 20)]


def test_instances_survive_the_accounts_process(cloud):
    cloud.allow(*allow_all(cloud.FIRST.private_ip, cloud.SECOND.private_ip))
    before = faults.run(
        cloud.home, cloud.FIRST.instance_id, ["cat", "/proc/sys/kernel/random/boot_id"]
    )
    cloud.containers.close()
    cloud.open()
    assert cloud.containers.state(cloud.FIRST.instance_id) == "running"
    after = faults.run(
        cloud.home, cloud.FIRST.instance_id, ["cat", "/proc/sys/kernel/random/boot_id"]
    )
    assert after.stdout == before.stdout
    assert metadata(cloud, "meta-data/instance-id") == cloud.FIRST.instance_id
    assert cloud.reaches(cloud.FIRST.instance_id, cloud.SECOND.private_ip)
