"""What a public endpoint is made of, as boto3 makes it: certificate, load balancer, listener."""

from __future__ import annotations

import pytest
from certificates import imported


@pytest.fixture(scope="module")
def made(account, site):
    """A network load balancer with a TLS listener and one target; ARNs by kind."""
    elb, acm = account.client("elbv2"), account.client("acm")
    certificate = imported(acm, "moe.example.com")
    balancer = elb.create_load_balancer(
        Name="endpoint", Type="network", Scheme="internal", Subnets=[site.subnet]
    )["LoadBalancers"][0]["LoadBalancerArn"]
    group = elb.create_target_group(
        Name="endpoint", Protocol="TCP", Port=8000, VpcId=site.vpc, TargetType="ip"
    )["TargetGroups"][0]["TargetGroupArn"]
    listener = elb.create_listener(
        LoadBalancerArn=balancer,
        Protocol="TLS",
        Port=443,
        Certificates=[{"CertificateArn": certificate}],
        SslPolicy="ELBSecurityPolicy-TLS13-1-2-2021-06",
        DefaultActions=[{"Type": "forward", "TargetGroupArn": group}],
    )["Listeners"][0]["ListenerArn"]
    elb.register_targets(TargetGroupArn=group, Targets=[{"Id": "10.20.0.9"}])
    return {"certificate": certificate, "group": group, "listener": listener, "balancer": balancer}


def test_a_listener_takes_no_certificate_that_is_not_issued(account, made, refusal):
    elb, acm = account.client("elbv2"), account.client("acm")
    pending = acm.request_certificate(DomainName="moe.example.com")["CertificateArn"]

    def listen(arn):
        return elb.create_listener(
            LoadBalancerArn=made["balancer"],
            Protocol="TLS",
            Port=8443,
            Certificates=[{"CertificateArn": arn}],
            DefaultActions=[{"Type": "forward", "TargetGroupArn": made["group"]}],
        )

    assert refusal(lambda: listen(pending)) == "UnsupportedCertificate"
    assert refusal(lambda: listen(pending[:-1])) == "CertificateNotFound"


def test_the_certificate_of_a_listener_is_listed(account, made):
    acm, elb = account.client("acm"), account.client("elbv2")
    listed = acm.list_certificates()["CertificateSummaryList"]
    assert made["certificate"] in {c["CertificateArn"] for c in listed}
    (listener,) = elb.describe_listeners(ListenerArns=[made["listener"]])["Listeners"]
    assert listener["Protocol"] == "TLS"
    assert listener["Certificates"] == [{"CertificateArn": made["certificate"]}]


def test_the_idle_timeout_of_a_listener_is_kept(account, made):
    elb = account.client("elbv2")
    wanted = {"Key": "tcp.idle_timeout.seconds", "Value": "6000"}
    elb.modify_listener_attributes(ListenerArn=made["listener"], Attributes=[wanted])
    kept = elb.describe_listener_attributes(ListenerArn=made["listener"])["Attributes"]
    assert wanted in kept


def test_a_registered_target_is_described_with_its_port(account, made):
    elb = account.client("elbv2")
    (target,) = elb.describe_target_health(TargetGroupArn=made["group"])["TargetHealthDescriptions"]
    assert target["Target"] == {"Id": "10.20.0.9", "Port": 8000}


def test_a_nat_gateway_holds_its_elastic_ip(site):
    ec2 = site.ec2
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    gateway = ec2.create_nat_gateway(SubnetId=site.subnet, AllocationId=address)["NatGateway"]
    (shown,) = ec2.describe_nat_gateways(NatGatewayIds=[gateway["NatGatewayId"]])["NatGateways"]
    assert shown["NatGatewayAddresses"][0]["AllocationId"] == address


def test_an_interface_endpoint_is_in_its_subnet_with_its_group(site):
    made = site.ec2.create_vpc_endpoint(
        VpcId=site.vpc,
        ServiceName="com.amazonaws.us-east-1.ssm",
        VpcEndpointType="Interface",
        SubnetIds=[site.subnet],
        SecurityGroupIds=[site.group],
        PrivateDnsEnabled=True,
    )["VpcEndpoint"]
    (shown,) = site.ec2.describe_vpc_endpoints(VpcEndpointIds=[made["VpcEndpointId"]])[
        "VpcEndpoints"
    ]
    assert shown["SubnetIds"] == [site.subnet]
    assert shown["PrivateDnsEnabled"] is True
