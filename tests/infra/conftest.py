"""Statuses and deployments as the program and the nodes write them; an account with a stack."""

from __future__ import annotations

import boto3
import pytest
from moto import mock_aws

from infra import leftovers
from infra.names import STACK_TAG, bucket_name, iam_path
from infra.readiness import Deployment, ExpectedGroup, ExpectedNode
from infra.resources import policies
from node_bootstrap.status import (
    Experts,
    Found,
    GroupReport,
    MemberReport,
    ProbeReport,
    Restart,
    Status,
    StepReport,
)

REVISION, ARCHIVE = "r1", "a1"
NODES = ("serve-0-0", "serve-0-1")

NOT_IN_MOTO = ("placement group", "capacity reservation")
TAGS = [{"Key": STACK_TAG, "Value": "dev"}, {"Key": "Name", "Value": "mine"}]


@pytest.fixture
def deployment() -> Deployment:
    """Two nodes, one rank each."""
    return Deployment(
        schema=1,
        stack="dev",
        region="us-east-1",
        bucket="moe-serving-dev-123456789012",
        endpoint="http://10.42.0.10:8000/v1",
        model="tiny",
        vllm_version="0.32.0",
        nodes={
            name: ExpectedNode(f"i-{index}", f"10.42.0.1{index}", REVISION, ARCHIVE)
            for index, name in enumerate(NODES)
        },
        groups={"serve-0": ExpectedGroup(NODES, REVISION, ranks=2, expert_parallel_size=2)},
    )


@pytest.fixture
def group_report():
    def make(**changes) -> GroupReport:
        given = {
            "revision": REVISION,
            "generation": 1,
            "phase": "ready",
            "since": 100.0,
            "members": tuple(
                MemberReport(name, f"i-{index}", f"boot-{index}", "running", 1, 100.0)
                for index, name in enumerate(NODES[1:], start=1)
            ),
            "probes": tuple(ProbeReport(rank, " a", 0.03, 100.0) for rank in range(2)),
            "restarts": (Restart(1, REVISION, "first start", 90.0, 100.0),),
        }
        return GroupReport(**(given | changes))

    return make


@pytest.fixture
def status(group_report):
    def make(index: int, **changes) -> Status:
        given = {
            "schema": 1,
            "node": NODES[index],
            "instance_id": f"i-{index}",
            "boot_id": f"boot-{index}",
            "updated_at": 100.0,
            "phase": "role",
            "steps": (StepReport("weights", "CHANGED", 1.5, "2 files"),),
            "archive_sha256": ARCHIVE,
            "revision": REVISION,
            "generation": 1,
            "running": True,
            "found": Found(experts=(Experts(index, 2, (index * 2, index * 2 + 1), 4),)),
            "group": group_report() if index == 0 else None,
            "booted_at": 80.0,
            "agent_started_at": 83.0,
        }
        return Status(**(given | changes))

    return make


@pytest.fixture(scope="module")
def session():
    """An account; one for all tests of a module, since each new one takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setattr(leftovers, "RETRY_SECONDS", 0.0)
        held = tuple(kind for kind in leftovers.KINDS if kind.name not in NOT_IN_MOTO)
        patch.setattr(leftovers, "KINDS", held)
        with mock_aws():
            yield boto3.Session(region_name="us-east-1")


@pytest.fixture(scope="module")
def stack(session) -> dict[str, str]:
    """One of each kind, made as a stack makes them; returns kind -> id."""
    return make_stack(session)


def make_stack(session) -> dict[str, str]:
    ec2 = session.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.42.0.0/16", TagSpecifications=tagged("vpc"))["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(
        VpcId=vpc, CidrBlock="10.42.0.0/20", TagSpecifications=tagged("subnet")
    )["Subnet"]["SubnetId"]
    table = ec2.create_route_table(VpcId=vpc, TagSpecifications=tagged("route-table"))
    table_id = table["RouteTable"]["RouteTableId"]
    ec2.associate_route_table(RouteTableId=table_id, SubnetId=subnet)
    gateway = ec2.create_internet_gateway(TagSpecifications=tagged("internet-gateway"))
    gateway_id = gateway["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway_id, VpcId=vpc)
    endpoint = ec2.create_vpc_endpoint(
        VpcId=vpc,
        ServiceName="com.amazonaws.us-east-1.s3",
        VpcEndpointType="Gateway",
        RouteTableIds=[table_id],
        TagSpecifications=tagged("vpc-endpoint"),
    )["VpcEndpoint"]["VpcEndpointId"]
    return {
        "VPC": vpc,
        "subnet": subnet,
        "route table": table_id,
        "internet gateway": gateway_id,
        "VPC endpoint": endpoint,
        **make_balancer(session.client("elbv2"), vpc, subnet),
        **make_members(ec2, vpc, subnet),
        **make_storage(session),
        **make_identity(session),
    }


def make_balancer(elb, vpc: str, subnet: str) -> dict[str, str]:
    tags = [{"Key": STACK_TAG, "Value": "dev"}]
    balancer = elb.create_load_balancer(Name="b", Type="network", Subnets=[subnet], Tags=tags)
    group = elb.create_target_group(
        Name="g", Protocol="TCP", Port=8000, VpcId=vpc, TargetType="ip", Tags=tags
    )
    return {
        "load balancer": balancer["LoadBalancers"][0]["LoadBalancerArn"],
        "target group": group["TargetGroups"][0]["TargetGroupArn"],
    }


def make_members(ec2, vpc: str, subnet: str) -> dict[str, str]:
    group = ec2.create_security_group(
        GroupName="members", Description="x", VpcId=vpc, TagSpecifications=tagged("security-group")
    )["GroupId"]
    to_itself = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=to_itself)
    interface = ec2.create_network_interface(
        SubnetId=subnet, Groups=[group], TagSpecifications=tagged("network-interface")
    )["NetworkInterface"]["NetworkInterfaceId"]
    template = ec2.create_launch_template(
        LaunchTemplateName="t",
        LaunchTemplateData={"InstanceType": "c7i.large"},
        TagSpecifications=tagged("launch-template"),
    )["LaunchTemplate"]["LaunchTemplateId"]
    instance = ec2.run_instances(
        ImageId="ami-12c6146b",
        InstanceType="c7i.large",
        MinCount=1,
        MaxCount=1,
        SubnetId=subnet,
        TagSpecifications=tagged("instance"),
    )["Instances"][0]["InstanceId"]
    address = ec2.allocate_address(Domain="vpc", TagSpecifications=tagged("elastic-ip"))
    return {
        "security group": group,
        "network interface": interface,
        "launch template": template,
        "instance": instance,
        "elastic IP": address["AllocationId"],
    }


def make_storage(session) -> dict[str, str]:
    name = bucket_name("dev", "123456789012")
    s3 = session.client("s3")
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    for content in (b"1", b"2"):
        s3.put_object(Bucket=name, Key="nodes/x/status.json", Body=content)
    s3.delete_object(Bucket=name, Key="nodes/x/status.json")
    session.client("ssm").put_parameter(
        Name="/moe-serving/dev/api-key", Value="x", Type="SecureString"
    )
    return {"bucket": name, "SSM parameter": "/moe-serving/dev/api-key"}


def make_identity(session) -> dict[str, str]:
    iam, path = session.client("iam"), iam_path("dev")
    iam.create_role(RoleName="node-role", Path=path, AssumeRolePolicyDocument="{}")
    iam.put_role_policy(
        RoleName="node-role",
        PolicyName="p",
        PolicyDocument=policies.node("arn:aws:s3:::x", "n", ["arn:aws:ssm:::parameter/x"]),
    )
    iam.create_instance_profile(InstanceProfileName="node-profile", Path=path)
    iam.add_role_to_instance_profile(InstanceProfileName="node-profile", RoleName="node-role")
    return {"role": "node-role", "instance profile": "node-profile"}


def tagged(kind: str) -> list[dict]:
    return [{"ResourceType": kind, "Tags": TAGS}]
