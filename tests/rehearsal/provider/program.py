"""A program with every resource type that the provider knows; its config is set by the tests."""

import base64
import json

import pulumi
import pulumi_aws as aws

config = pulumi.Config()
greeting = config.get("greeting") or "hello"
nodes = config.get_int("nodes") or 2
image = config.get("image")

identity = aws.get_caller_identity_output()
partition = aws.get_partition_output()
zones = aws.get_availability_zones_output(state="available")
debian = aws.ssm.get_parameter_output(name="/aws/service/debian/release/13/latest/amd64")
kind = aws.ec2.get_instance_type_output(instance_type="p5.48xlarge")
offerings = aws.ec2.get_instance_type_offerings_output(location_type="availability-zone")

vpc = aws.ec2.Vpc("net", cidr_block="10.9.0.0/16", enable_dns_hostnames=True)
zone = zones.names.apply(lambda names: names[0])
subnet = aws.ec2.Subnet("a", vpc_id=vpc.id, cidr_block="10.9.1.0/24", availability_zone=zone)
gateway = aws.ec2.InternetGateway("out", vpc_id=vpc.id)
address = aws.ec2.Eip("nat", domain="vpc", opts=pulumi.ResourceOptions(depends_on=[gateway]))
nat = aws.ec2.NatGateway("nat", subnet_id=subnet.id, allocation_id=address.id)
table = aws.ec2.RouteTable("private", vpc_id=vpc.id)
aws.ec2.Route(
    "default", route_table_id=table.id, destination_cidr_block="0.0.0.0/0", nat_gateway_id=nat.id
)
aws.ec2.RouteTableAssociation("private", subnet_id=subnet.id, route_table_id=table.id)
aws.ec2.VpcEndpoint(
    "s3",
    vpc_id=vpc.id,
    service_name=aws.get_region_output().region.apply(lambda name: f"com.amazonaws.{name}.s3"),
    route_table_ids=[table.id],
)

members = aws.ec2.SecurityGroup("members", vpc_id=vpc.id, description="all from members")
aws.vpc.SecurityGroupIngressRule(
    "members",
    security_group_id=members.id,
    referenced_security_group_id=members.id,
    ip_protocol="-1",
)
aws.vpc.SecurityGroupEgressRule(
    "out", security_group_id=members.id, cidr_ipv4="0.0.0.0/0", ip_protocol="-1"
)

bucket = aws.s3.Bucket("models", force_destroy=True)
aws.s3.BucketPublicAccessBlock(
    "models", bucket=bucket.id, block_public_acls=True, block_public_policy=True
)
aws.s3.BucketServerSideEncryptionConfiguration(
    "models",
    bucket=bucket.id,
    rules=[{"apply_server_side_encryption_by_default": {"sse_algorithm": "AES256"}}],
)
aws.s3.BucketVersioning("models", bucket=bucket.id, versioning_configuration={"status": "Enabled"})
aws.s3.BucketLifecycleConfiguration(
    "models",
    bucket=bucket.id,
    rules=[
        {
            "id": "old",
            "status": "Enabled",
            "filter": {"prefix": "bootstrap/"},
            "noncurrent_version_expiration": {"noncurrent_days": 7},
        }
    ],
)
aws.s3.BucketPolicy(
    "models",
    bucket=bucket.id,
    policy=bucket.arn.apply(
        lambda arn: json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Deny",
                        "Principal": "*",
                        "Action": "s3:PutBucketAcl",
                        "Resource": [arn],
                    }
                ],
            }
        )
    ),
)
aws.s3.BucketObjectv2(
    "archive", bucket=bucket.id, key="bootstrap/archive", source=pulumi.FileAsset("Pulumi.yaml")
)
note = aws.s3.BucketObjectv2(
    "note",
    bucket=bucket.id,
    key="note.json",
    content=json.dumps({"greeting": greeting}),
    content_type="application/json",
)

token = aws.ssm.Parameter(
    "token",
    name="/test/token",
    type="SecureString",
    value=pulumi.Output.secret("tOpSeCrEt-" + greeting),
    opts=pulumi.ResourceOptions(ignore_changes=["value"]),
)

trust = aws.iam.get_policy_document_output(
    statements=[
        {
            "actions": ["sts:AssumeRole"],
            "principals": [{"type": "Service", "identifiers": ["ec2.amazonaws.com"]}],
        }
    ]
)
group = aws.ec2.PlacementGroup("domain", strategy="cluster")

for index in range(nodes):
    role = aws.iam.Role(f"node-{index}", assume_role_policy=trust.json)
    aws.iam.RolePolicy(
        f"node-{index}",
        role=role.id,
        policy=bucket.arn.apply(
            lambda arn: json.dumps(
                {
                    "Version": "2012-10-17",
                    "Statement": [
                        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"{arn}/*"]}
                    ],
                }
            )
        ),
    )
    profile = aws.iam.InstanceProfile(f"node-{index}", role=role.name)
    nic = aws.ec2.NetworkInterface(
        f"node-{index}", subnet_id=subnet.id, security_groups=[members.id]
    )
    template = aws.ec2.LaunchTemplate(
        f"node-{index}",
        image_id=image or debian.value,
        instance_type="c7i.large",
        iam_instance_profile={"arn": profile.arn},
        network_interfaces=[
            {
                "network_card_index": 0,
                "device_index": 0,
                "network_interface_id": nic.id,
                "delete_on_termination": "false",
            }
        ],
        metadata_options={"http_tokens": "required", "http_put_response_hop_limit": 1},
        instance_initiated_shutdown_behavior="terminate",
        placement={"group_name": group.name},
        user_data=base64.b64encode(f"#cloud-config\n# {greeting}\n".encode()).decode(),
        tag_specifications=[{"resource_type": "instance", "tags": {"Name": f"node-{index}"}}],
    )
    node = aws.ec2.Instance(
        f"node-{index}",
        launch_template={"id": template.id, "version": template.latest_version.apply(str)},
        tags={"Name": f"node-{index}"},
        opts=pulumi.ResourceOptions(delete_before_replace=True),
    )

balancer = aws.lb.LoadBalancer(
    "api", load_balancer_type="network", internal=True, subnets=[subnet.id]
)
targets = aws.lb.TargetGroup(
    "api",
    port=8000,
    protocol="TCP",
    target_type="ip",
    vpc_id=vpc.id,
    deregistration_delay=10,
    health_check={"protocol": "TCP", "port": "8000"},
)
aws.lb.TargetGroupAttachment(
    "api", target_group_arn=targets.arn, target_id=nic.private_ip, port=8000
)
aws.lb.Listener(
    "api",
    load_balancer_arn=balancer.arn,
    port=8000,
    protocol="TCP",
    default_actions=[{"type": "forward", "target_group_arn": targets.arn}],
)

pulumi.export("account", identity.account_id)
pulumi.export("partition", partition.partition)
pulumi.export("vpc", vpc.id)
pulumi.export("group", members.id)
pulumi.export("bucket", bucket.id)
pulumi.export("address", nic.private_ip)
pulumi.export("token", token.value)
pulumi.export("cards", kind.maximum_network_cards)
pulumi.export("offered", offerings.instance_types.apply(lambda types: "p5.48xlarge" in types))
pulumi.export("default_tags", vpc.tags_all)
pulumi.export("version", note.version_id)
