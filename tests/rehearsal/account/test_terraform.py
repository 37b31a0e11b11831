"""A client that isn't ours: Terraform's AWS provider applies, plans and destroys on the account.

It is also the test of the seam to moto: Terraform reads back everything that it made. Skipped
where Terraform or a folder with the provider is missing; MOE_TERRAFORM_PLUGINS names that folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

CONFIGURATION = """
terraform {
  required_providers { aws = { source = "hashicorp/aws" } }
}
provider "aws" {
  region      = "us-east-1"
  max_retries = 2
  skip_metadata_api_check = true
  s3_use_path_style = true
  default_tags { tags = { "moe-serving:stack" = "tf" } }
}
data "aws_ssm_parameter" "debian" { name = "/aws/service/debian/release/13/latest/amd64" }
resource "aws_vpc" "v" {
  cidr_block           = "10.40.0.0/16"
  enable_dns_hostnames = true
}
resource "aws_subnet" "s" {
  vpc_id            = aws_vpc.v.id
  cidr_block        = "10.40.0.0/24"
  availability_zone = "us-east-1a"
}
resource "aws_security_group" "g" {
  name_prefix = "members"
  vpc_id      = aws_vpc.v.id
}
resource "aws_vpc_security_group_ingress_rule" "self" {
  security_group_id            = aws_security_group.g.id
  referenced_security_group_id = aws_security_group.g.id
  ip_protocol                  = "-1"
}
resource "aws_vpc_security_group_ingress_rule" "api" {
  security_group_id = aws_security_group.g.id
  cidr_ipv4         = "198.18.0.0/15"
  ip_protocol       = "tcp"
  from_port         = 8000
  to_port           = 8000
}
resource "aws_vpc_security_group_egress_rule" "all" {
  security_group_id = aws_security_group.g.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}
resource "aws_network_interface" "primary" {
  subnet_id       = aws_subnet.s.id
  security_groups = [aws_security_group.g.id]
  description     = "primary of a node"
}
resource "aws_placement_group" "p" {
  name     = "tf"
  strategy = "cluster"
}
resource "aws_iam_role" "node" {
  name_prefix = "node"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole",
                   Principal = { Service = "ec2.amazonaws.com" } }]
  })
}
resource "aws_iam_instance_profile" "node" { role = aws_iam_role.node.name }
resource "aws_launch_template" "t" {
  name_prefix   = "node"
  image_id      = data.aws_ssm_parameter.debian.insecure_value
  instance_type = "TYPE"
  user_data     = base64encode("#cloud-config\\n")
  instance_initiated_shutdown_behavior = "terminate"
  iam_instance_profile { arn = aws_iam_instance_profile.node.arn }
  metadata_options {
    http_tokens                 = "required"
    http_endpoint               = "enabled"
    http_put_response_hop_limit = 2
    instance_metadata_tags      = "enabled"
  }
  placement { group_name = aws_placement_group.p.name }
  network_interfaces {
    device_index         = 0
    network_interface_id = aws_network_interface.primary.id
  }
  EXTRA
  tag_specifications {
    resource_type = "volume"
    tags          = { "from" = "template" }
  }
}
resource "aws_instance" "i" {
  launch_template {
    id      = aws_launch_template.t.id
    version = "$Latest"
  }
  tags = { Name = "node" }
  # The provider hashes a template's user data twice when it plans (its issues 30825 and 39476).
  lifecycle { ignore_changes = [user_data] }
}
output "instance" { value = aws_instance.i.id }
"""
EFA_CARD = """
  network_interfaces {
    device_index          = 1
    network_card_index    = %d
    interface_type        = "efa-only"
    subnet_id             = aws_subnet.s.id
    security_groups       = [aws_security_group.g.id]
    delete_on_termination = true
  }
"""


def plugin_folder():
    places = [
        os.environ.get("MOE_TERRAFORM_PLUGINS", ""),
        "/opt/tf-plugins",
        "~/.terraform.d/plugins",
        "/usr/local/share/terraform/plugins",
        "/usr/share/terraform/plugins",
    ]
    folders = [Path(p).expanduser() for p in places if p]
    return next((f for f in folders if (f / "registry.terraform.io/hashicorp/aws").is_dir()), None)


class Terraform:
    def __init__(self, folder, account, plugins):
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "CHECKPOINT_DISABLE": "1",
            "AWS_ENDPOINT_URL": account.endpoint["url"],
            "TF_IN_AUTOMATION": "1",
            "AWS_ACCESS_KEY_ID": account.endpoint["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": account.endpoint["secret_access_key"],
        }
        self("init", f"-plugin-dir={plugins}")

    def __call__(self, *arguments, status=0):
        done = subprocess.run(
            ["terraform", arguments[0], "-no-color", *arguments[1:]],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def terraform(tmp_path):
    plugins = plugin_folder()
    if shutil.which("terraform") is None or plugins is None:
        pytest.skip("terraform or a plugin folder with hashicorp/aws is not on this machine")

    def prepare(account, instance_type, cards=()):
        text = CONFIGURATION.replace("TYPE", instance_type)
        text = text.replace("EXTRA", "".join(EFA_CARD % c for c in cards))
        (tmp_path / "main.tf").write_text(text)
        return Terraform(tmp_path, account, plugins)

    return prepare


def everything_left(account):
    ec2, iam = account.client("ec2"), account.client("iam")
    interfaces = ec2.describe_network_interfaces()["NetworkInterfaces"]
    volumes = ec2.describe_volumes()["Volumes"]
    vpcs = [v for v in ec2.describe_vpcs()["Vpcs"] if not v["IsDefault"]]
    groups = ec2.describe_placement_groups()["PlacementGroups"]
    templates = ec2.describe_launch_templates()["LaunchTemplates"]
    return [interfaces, volumes, vpcs, groups, templates, iam.list_roles()["Roles"]]


def test_terraform_applies_a_gpu_node_plans_no_change_and_destroys_it(booting, terraform):
    tf = terraform(booting, "p5.48xlarge", cards=range(32))
    tf("apply", "-auto-approve")
    assert "No changes." in tf("plan", "-detailed-exitcode")

    instance_id = json.loads(tf("output", "-json"))["instance"]["value"]
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
