"""A client that isn't ours: Terraform's AWS provider applies, plans and destroys on the account.

It is also the test of the seam to moto: Terraform reads back everything that it made. Skipped
where Terraform or a folder with the provider is missing; MOE_TERRAFORM_PLUGINS names that folder.
"""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from pathlib import Path

import pytest
from terraform_cli import Terraform, plugin_folder

from rehearsal import machine
from rehearsal.machine import faults
from rehearsal.paths import Home

pytestmark = pytest.mark.e2e

NODE = Path(__file__).with_name("terraform_node.tf")
BOOT_SECONDS = 300

PAGE = "served by what Terraform launched\n"
USER_DATA = f"""#cloud-config
write_files:
  - path: /opt/page/index.html
    content: |
      {PAGE.strip()}
  - path: /etc/systemd/system/page@.service
    content: |
      [Service]
      ExecStart=/usr/bin/python3 -m http.server --directory /opt/page %i
runcmd:
  - [systemctl, start, page@8000, page@8001]
"""
"""One page at two ports; the group of terraform_node.tf lets this machine reach only port 8000."""


@pytest.fixture
def terraform(tmp_path):
    plugins = plugin_folder()

    def prepare(account, **variables):
        folder = tmp_path / "terraform"
        folder.mkdir()
        shutil.copy(NODE, folder)
        (folder / "terraform.tfvars.json").write_text(json.dumps(variables))
        return Terraform(folder, account.endpoint, plugins)

    return prepare


def everything_left(account):
    ec2, iam = account.client("ec2"), account.client("iam")
    interfaces = ec2.describe_network_interfaces()["NetworkInterfaces"]
    volumes = ec2.describe_volumes()["Volumes"]
    vpcs = [v for v in ec2.describe_vpcs()["Vpcs"] if not v["IsDefault"]]
    groups = ec2.describe_placement_groups()["PlacementGroups"]
    templates = ec2.describe_launch_templates()["LaunchTemplates"]
    return [interfaces, volumes, vpcs, groups, templates, iam.list_roles()["Roles"]]


def fetch(address, port, seconds=5):
    # Straight to the node, whatever proxy the environment names.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}:{port}/", timeout=seconds) as answer:
        return answer.read().decode()


def fetch_once_served(account, instance, address, port):
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        try:
            return fetch(address, port)
        except OSError as problem:
            if time.monotonic() > deadline:
                console = account.client("ec2").get_console_output(InstanceId=instance)
                pytest.fail(f"{problem}; the console:\n{console.get('Output', '')[-4000:]}")
            time.sleep(0.5)


def test_terraform_applies_a_gpu_node_plans_no_change_and_destroys_it(terraform, booting):
    tf = terraform(booting, cidr="10.40.0.0/16", instance_type="p5.48xlarge", efa_cards=32)
    tf("apply", "-auto-approve")
    assert "No changes." in tf("plan", "-detailed-exitcode")

    instance_id = tf.outputs()["instance"]
    shown = booting.client("ec2").describe_instances(InstanceIds=[instance_id])
    instance = shown["Reservations"][0]["Instances"][0]
    assert len(instance["NetworkInterfaces"]) == 33
    assert instance["Placement"]["GroupName"] == "tf"
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    address = booting.calls("launch")[-1]["private_ip"]
    assert address == instance["PrivateIpAddress"]
    api = [r for r in booting.calls("firewall")[-1]["rules"] if r["from_port"] == 8000]
    assert [(r["address"], r["peers"]) for r in api] == [(address, ["198.18.0.0/15"])]

    tf("destroy", "-auto-approve")
    assert booting.calls("terminate")[-1]["instance_id"] == instance_id
    assert everything_left(booting) == [[], [], [], [], [], []]


def test_a_node_that_terraform_launches_boots_serves_its_page_and_leaves_nothing(terraform, real):
    home = Home(real.home)
    tf = terraform(real, cidr="10.44.0.0/16", instance_type="m7i.large", user_data=USER_DATA)
    tf("apply", "-auto-approve")
    instance, address = tf.outputs()["instance"], tf.outputs()["address"]

    assert fetch_once_served(real, instance, address, 8000) == PAGE
    inside = ["curl", "-s", "--retry", "20", "--retry-connrefused", "http://127.0.0.1:8001/"]
    assert faults.run(home, instance, inside).stdout == PAGE
    with pytest.raises(OSError, match="timed out"):
        fetch(address, 8001)  # no rule lets this machine in there
    assert "No changes." in tf("plan", "-detailed-exitcode")
    assert machine.leftovers(home.tag)  # else their absence below would prove nothing

    tf("destroy", "-auto-approve")
    assert everything_left(real) == [[], [], [], [], [], []]
    assert machine.leftovers(home.tag) == []
