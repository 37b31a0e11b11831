"""The load balancer in front: public with a certificate, or inside the VPC."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pulumi_aws")

CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/0a1b2c3d-0000-0000-0000-000000000000"
PUBLIC = {
    "exposure": "public",
    "certificate_arn": CERTIFICATE,
    "allowed_cidrs": ["203.0.113.0/24"],
}


@pytest.fixture
def with_endpoint(run_program, config):
    """Run the program with a section `endpoint`; answers what it made and what it exported."""

    def run(endpoint, *, gateway: bool = False):
        sections = {"moe-serving:endpoint": endpoint, "moe-serving:gateway": {"enabled": gateway}}
        return run_program(config | sections)

    return run


def test_no_load_balancer_where_none_is_asked_for(two_nodes):
    account, exported = two_nodes
    assert not account.of("LoadBalancer")
    assert "endpoint_dns_name" not in exported


def test_a_public_endpoint_is_a_tls_listener_in_the_public_subnet(with_endpoint):
    account, exported = with_endpoint(PUBLIC)
    balancer = account.one("lb/loadBalancer:LoadBalancer", "endpoint").inputs
    assert (balancer["loadBalancerType"], balancer["internal"]) == ("network", False)
    assert balancer["subnets"] == ["public-id"]
    listener = account.one("lb/listener:Listener", "endpoint").inputs
    assert (listener["protocol"], listener["port"]) == ("TLS", 443)
    assert listener["certificateArn"] == CERTIFICATE
    assert "tcpIdleTimeoutSeconds" not in listener, "AWS refuses it for TLS"
    assert exported["endpoint"] == "https://nlb.example/v1"
    assert exported["endpoint_dns_name"] == "nlb.example"


def test_clients_use_the_name_of_the_certificate(with_endpoint):
    _, exported = with_endpoint(PUBLIC | {"domain": "llm.example.org"})
    assert exported["endpoint"] == "https://llm.example.org/v1"


def test_clients_reach_the_load_balancer_alone_and_it_reaches_the_primaries_alone(with_endpoint):
    account, _ = with_endpoint(PUBLIC)
    rules = {made.name: made.inputs for made in account.of("SecurityGroupIngressRule")}
    from_outside = {n: r for n, r in rules.items() if "cidrIpv4" in r}
    assert set(from_outside) == {"load-balancer-from-203.0.113.0-24"}
    (rule,) = from_outside.values()
    assert (rule["securityGroupId"], rule["fromPort"]) == ("load-balancer-id", 443)
    inside = rules["nodes-from-load-balancer"]
    assert inside["securityGroupId"] == "access-id"
    assert inside["referencedSecurityGroupId"] == "load-balancer-id"
    targets = {made.name: made.inputs["targetId"] for made in account.of("TargetGroupAttachment")}
    assert targets == {"serve-0-0-target": "10.42.0.11"}


def test_an_internal_one_passes_tcp_on_and_waits_long_for_a_completion(with_endpoint):
    account, exported = with_endpoint({"load_balancer": True, "allowed_cidrs": ["198.18.0.0/15"]})
    balancer = account.one("lb/loadBalancer:LoadBalancer", "endpoint").inputs
    assert balancer["internal"] is True
    assert balancer["subnets"] == ["nodes-id"]
    listener = account.one("lb/listener:Listener", "endpoint").inputs
    assert (listener["protocol"], listener["port"]) == ("TCP", 8000)
    assert listener["tcpIdleTimeoutSeconds"] == 6000
    assert not account.of("InternetGateway")
    assert exported["endpoint"] == "http://nlb.example:8000/v1"


def test_a_public_endpoint_has_a_gateway_unless_it_is_told_otherwise(run_program, config):
    account, exported = run_program(config | {"moe-serving:endpoint": PUBLIC})
    (target,) = account.of("TargetGroupAttachment")
    assert target.name == "gateway-target"
    assert set(exported["api_keys"]) == {"default"}


def test_the_load_balancer_ends_the_clients_tls_and_begins_its_own_to_the_gateway(with_endpoint):
    account, exported = with_endpoint(PUBLIC | {"domain": "llm.example.org"}, gateway=True)
    assert account.one("lb/targetGroup:TargetGroup", "endpoint").inputs["protocol"] == "TLS"
    listener = account.one("lb/listener:Listener", "endpoint").inputs
    assert (listener["protocol"], listener["port"]) == ("TLS", 443)
    assert exported["endpoint"] == "https://llm.example.org/v1"
    assert "ca_certificate" not in exported, "clients meet the certificate of ACM"


def test_of_what_is_outside_only_the_load_balancer_reaches_the_gateway(with_endpoint):
    account, _ = with_endpoint(PUBLIC, gateway=True)
    rules = {made.name: made.inputs for made in account.of("SecurityGroupIngressRule")}
    to_gateway = {n: r for n, r in rules.items() if r["securityGroupId"] == "gateway-id"}
    assert set(to_gateway) == {"nodes-from-load-balancer", "gateway-from-members"}
    rule = to_gateway["nodes-from-load-balancer"]
    assert (rule["fromPort"], rule["referencedSecurityGroupId"]) == (443, "load-balancer-id")


def test_without_a_certificate_the_clients_tls_is_the_gateways_own(with_endpoint):
    inside = {"load_balancer": True, "allowed_cidrs": ["198.18.0.0/15"], "domain": "llm.internal"}
    account, exported = with_endpoint(inside, gateway=True)
    assert account.one("lb/targetGroup:TargetGroup", "endpoint").inputs["protocol"] == "TCP"
    listener = account.one("lb/listener:Listener", "endpoint").inputs
    assert (listener["protocol"], listener["port"]) == ("TCP", 443)
    assert exported["endpoint"] == "https://llm.internal/v1"


def test_the_gateways_certificate_has_the_names_of_the_load_balancer(with_endpoint):
    account, _ = with_endpoint({"load_balancer": True, "domain": "llm.internal"}, gateway=True)
    told = account.one("s3/bucketObjectv2:BucketObjectv2", "gateway-assignment").inputs
    names = json.loads(told["content"])["gateway"]["tls"]["names"]
    assert names[:2] == ["llm.internal", "nlb.example"]
