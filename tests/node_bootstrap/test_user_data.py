"""What a node is given at birth, and never again."""

from __future__ import annotations

from importlib import resources

import pytest
import yaml

from node_bootstrap.user_data import LIMIT_BYTES, render

GOOD = ("moe-serving-rehearsal-123456789012", "serve-0-0", "us-east-1")


def files():
    return {f["path"]: f for f in yaml.safe_load(render(*GOOD))["write_files"]}


def test_the_same_names_give_the_same_bytes():
    assert render(*GOOD) == render(*GOOD)


def test_it_fits_into_what_ec2_takes_with_the_longest_names():
    longest = render("b" * 63, "n" * 63, "us-gov-west-1", ephemeral=True)
    assert len(longest) <= LIMIT_BYTES


def test_cloud_init_knows_it_by_its_first_line():
    assert render(*GOOD).startswith(b"#cloud-config\n")


def test_the_node_finds_its_bucket_its_name_and_its_region():
    assert yaml.safe_load(files()["/etc/moe/node.json"]["content"]) == {
        "bucket": GOOD[0],
        "node": GOOD[1],
        "region": GOOD[2],
    }


@pytest.mark.parametrize("name", ["fetch.py", "moe-node.service"])
def test_files_arrive_byte_by_byte(name):
    sent = next(f for path, f in files().items() if path.endswith(name))
    assert sent["content"] == resources.files("node_bootstrap.files").joinpath(name).read_text()


def test_the_agent_is_started_without_waiting_for_it():
    commands = yaml.safe_load(render(*GOOD))["runcmd"]
    assert commands[-1] == ["systemctl", "enable", "--now", "--no-block", "moe-node.service"]


def test_a_node_of_a_stack_that_ends_has_a_net_where_no_assignment_ever_came():
    config = yaml.safe_load(render(*GOOD, ephemeral=True))
    sent = {f["path"]: f["content"] for f in config["write_files"]}
    net = "/etc/systemd/system/moe-unassigned"
    assert "ConditionPathExists=!/var/lib/moe/assignment.json" in sent[f"{net}.service"]
    assert "OnBootSec=1h" in sent[f"{net}.timer"]
    assert ["systemctl", "enable", "--now", "moe-unassigned.timer"] in config["runcmd"]
    assert config["runcmd"][-1][-1] == "moe-node.service"


def test_a_node_of_a_stack_without_an_end_has_no_such_net():
    assert b"unassigned" not in render(*GOOD)


def test_all_bad_names_are_told_at_once():
    with pytest.raises(ValueError, match=r"bucket 'A_b'.*node 'x y'.*region 'mars'"):
        render("A_b", "x y", "mars")


def test_a_name_can_not_smuggle_lines_into_the_config():
    with pytest.raises(ValueError, match=r"node"):
        render("bucket", "a\nruncmd: [evil]", "us-east-1")
