from __future__ import annotations

import json

import pytest

from infra import model, sources
from infra.planning import make_plan
from infra.preflight import asked_of, image
from infra.resources import images

GPUS = """\
model: {name: deepseek-ai/DeepSeek-V3-0324, source: "s3://models/m"}
groups: {serve: {instance_type: p5.48xlarge, nodes: 2}}
"""
OWN_IMAGE = "vllm: {image: 123456789012.dkr.ecr.us-east-1.amazonaws.com/vllm-efa:1}\n"


@pytest.fixture
def asked_by(tmp_path):
    """What a settings file asks of the account."""

    def read(text: str, name: str = "dev"):
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        (tmp_path / "tiny").mkdir(exist_ok=True)
        config = {"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8}
        (tmp_path / "tiny/config.json").write_text(json.dumps(config))
        source = sources.read_file(path)
        settings = sources.load(source, name)
        plan = make_plan(name, settings, model.facts(settings.model, source.base))
        return asked_of(plan, settings)

    return read


def test_a_p5_node_asks_for_thirty_three_interfaces_and_one_address(asked_by):
    asked = asked_by(GPUS + OWN_IMAGE)
    assert asked.nodes == {"serve": ("p5.48xlarge", 2)}
    assert (asked.interfaces, asked.addresses) == (2 * 33 + 2, 2 + 2)
    assert (asked.gpu, asked.elastic_ips) == (True, 0)


def test_a_nat_gateway_asks_for_an_elastic_ip_in_place_of_endpoints(asked_by):
    asked = asked_by(GPUS)
    assert (asked.elastic_ips, asked.addresses) == (1, 3)


def test_an_existing_subnet_gets_the_nodes_alone(asked_by):
    asked = asked_by(GPUS + "network: {vpc_id: vpc-0a, subnet_id: subnet-0a}\n")
    assert (asked.interfaces, asked.addresses, asked.makes_network) == (66, 2, False)


def test_images_of_a_public_registry_ask_for_the_internet(asked_by):
    assert asked_by(GPUS).internet[0].startswith("the image ")
    assert asked_by(GPUS + OWN_IMAGE).internet == ()


def test_nodes_of_a_cpu_type_with_their_own_runtime_ask_for_none(asked_by):
    text = "model: {name: t, source: tiny}\ngroups: {serve: {instance_type: c7i.large}}\n"
    assert asked_by(text).internet == ()


def test_the_ttl_and_the_purchase_are_those_of_the_settings(asked_by):
    asked = asked_by(GPUS + "ttl: 4h\ncapacity: {kind: spot}\n")
    assert asked.ttl_seconds == 14400.0
    assert (asked.purchase("serve"), asked.purchase("gateway")) == ("spot", "on-demand")


def test_the_images_that_are_looked_at_are_those_that_nodes_boot_from():
    assert image.DEBIAN_PARAMETER == images.DEBIAN_PARAMETER
    assert image.GPU_PARAMETER == images.GPU_PARAMETER
