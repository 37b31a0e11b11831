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
CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/0a1b2c3d"
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
    # Interface endpoints for ssm, ssmmessages, ecr.api and ecr.dkr.
    assert (asked.interfaces, asked.addresses) == (2 * 33 + 4, 2 + 4)
    assert (asked.gpu, asked.elastic_ips) == (True, 0)


def test_a_nat_gateway_asks_for_an_elastic_ip_in_place_of_endpoints(asked_by):
    asked = asked_by(GPUS)
    assert (asked.elastic_ips, asked.addresses) == (1, 3)


def test_an_existing_subnet_gets_the_nodes_alone(asked_by):
    asked = asked_by(GPUS + "network: {vpc_id: vpc-0a, subnet_id: subnet-0a}\n")
    assert (asked.interfaces, asked.addresses, asked.makes_network) == (66, 2, False)


@pytest.mark.parametrize(
    ("section", "addresses"),
    [("load_balancer: true", 3), (f"exposure: public, certificate_arn: {CERTIFICATE}", 2)],
)
def test_a_load_balancer_takes_an_address_of_the_nodes_subnet_unless_it_is_public(
    asked_by, section, addresses
):
    network = "network: {vpc_id: vpc-0a, subnet_id: subnet-0a, public_subnet_id: subnet-0b}\n"
    given = f"endpoint: {{{section}, allowed_cidrs: [10.0.0.0/8]}}\ngateway: {{enabled: false}}\n"
    asked = asked_by(GPUS + network + given)
    assert (asked.interfaces, asked.addresses) == (2 * 33 + 1, addresses)
    assert asked.public_subnet_id == ("subnet-0b" if asked.public else None)


def test_images_of_a_public_registry_ask_for_the_internet(asked_by):
    assert asked_by(GPUS).internet[0].startswith("the image ")
    assert asked_by(GPUS + OWN_IMAGE).internet == ()


CPUS = "model: {name: t, source: tiny}\ngroups: {serve: {instance_type: c7i.large}}\n"


def test_nodes_of_a_cpu_type_get_their_runtime_from_the_internet(asked_by):
    assert asked_by(CPUS).internet == ("Python distributions",)


def test_nodes_of_a_cpu_type_with_an_image_of_the_users_ask_for_none(asked_by):
    assert asked_by(CPUS + "ami: ami-0123456789abcdef0\n").internet == ()


def test_a_gateway_gets_its_software_from_the_internet_whatever_the_nodes_have(asked_by):
    asked = asked_by(GPUS + OWN_IMAGE + "gateway: {enabled: true}\n")
    assert asked.internet == ("the gateway's caddy, prometheus and router",)
    assert asked.elastic_ips == 1


def test_the_ttl_and_the_purchase_are_those_of_the_settings(asked_by):
    asked = asked_by(GPUS + "ttl: 4h\ncapacity: {kind: spot}\n")
    assert asked.ttl_seconds == 14400.0
    assert (asked.purchase("serve"), asked.purchase("gateway")) == ("spot", "on-demand")


def test_the_images_that_are_looked_at_are_those_that_nodes_boot_from():
    assert image.DEBIAN_PARAMETER == images.DEBIAN_PARAMETER
    assert image.GPU_PARAMETER == images.GPU_PARAMETER
