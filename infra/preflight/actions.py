"""What `pulumi up` and `destroy` call, as IAM names it: one entry for each type of resource.

What only reads (Describe, Get, List) is left out, but for the content of objects and parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ACTIONS: Mapping[str, tuple[str, ...]] = {
    "ec2/vpc:Vpc": ("ec2:CreateVpc", "ec2:ModifyVpcAttribute", "ec2:DeleteVpc"),
    "ec2/subnet:Subnet": ("ec2:CreateSubnet", "ec2:DeleteSubnet"),
    "ec2/routeTable:RouteTable": ("ec2:CreateRouteTable", "ec2:DeleteRouteTable"),
    "ec2/routeTableAssociation:RouteTableAssociation": (
        "ec2:AssociateRouteTable",
        "ec2:DisassociateRouteTable",
    ),
    "ec2/vpcEndpoint:VpcEndpoint": ("ec2:CreateVpcEndpoint", "ec2:DeleteVpcEndpoints"),
    "ec2/internetGateway:InternetGateway": (
        "ec2:CreateInternetGateway",
        "ec2:AttachInternetGateway",
        "ec2:DetachInternetGateway",
        "ec2:DeleteInternetGateway",
    ),
    "ec2/route:Route": ("ec2:CreateRoute", "ec2:DeleteRoute"),
    "ec2/eip:Eip": ("ec2:AllocateAddress", "ec2:DisassociateAddress", "ec2:ReleaseAddress"),
    "ec2/natGateway:NatGateway": ("ec2:CreateNatGateway", "ec2:DeleteNatGateway"),
    "ec2/securityGroup:SecurityGroup": (
        "ec2:CreateSecurityGroup",
        # EC2 gives every new group a rule that lets everything out; the provider takes it away.
        "ec2:RevokeSecurityGroupEgress",
        "ec2:DeleteSecurityGroup",
    ),
    "vpc/securityGroupIngressRule:SecurityGroupIngressRule": (
        "ec2:AuthorizeSecurityGroupIngress",
        "ec2:RevokeSecurityGroupIngress",
    ),
    "vpc/securityGroupEgressRule:SecurityGroupEgressRule": (
        "ec2:AuthorizeSecurityGroupEgress",
        "ec2:RevokeSecurityGroupEgress",
    ),
    "ec2/networkInterface:NetworkInterface": (
        "ec2:CreateNetworkInterface",
        "ec2:DeleteNetworkInterface",
    ),
    "ec2/launchTemplate:LaunchTemplate": (
        "ec2:CreateLaunchTemplate",
        "ec2:CreateLaunchTemplateVersion",
        "ec2:DeleteLaunchTemplate",
    ),
    "ec2/instance:Instance": ("ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateTags"),
    "ec2/placementGroup:PlacementGroup": ("ec2:CreatePlacementGroup", "ec2:DeletePlacementGroup"),
    "ec2/capacityReservation:CapacityReservation": (
        "ec2:CreateCapacityReservation",
        "ec2:CancelCapacityReservation",
    ),
    "lb/loadBalancer:LoadBalancer": (
        "elasticloadbalancing:AddTags",
        "elasticloadbalancing:CreateLoadBalancer",
        "elasticloadbalancing:ModifyLoadBalancerAttributes",
        "elasticloadbalancing:DeleteLoadBalancer",
    ),
    "lb/targetGroup:TargetGroup": (
        "elasticloadbalancing:CreateTargetGroup",
        "elasticloadbalancing:ModifyTargetGroupAttributes",
        "elasticloadbalancing:DeleteTargetGroup",
    ),
    "lb/targetGroupAttachment:TargetGroupAttachment": (
        "elasticloadbalancing:RegisterTargets",
        "elasticloadbalancing:DeregisterTargets",
    ),
    "lb/listener:Listener": (
        "elasticloadbalancing:CreateListener",
        "elasticloadbalancing:ModifyListenerAttributes",
        "elasticloadbalancing:DeleteListener",
    ),
    "s3/bucket:Bucket": (
        "s3:CreateBucket",
        "s3:PutBucketTagging",
        "s3:ListBucket",
        # The bucket goes with its content, whose versions are looked for.
        "s3:ListBucketVersions",
        "s3:DeleteBucket",
    ),
    "s3/bucketPublicAccessBlock:BucketPublicAccessBlock": ("s3:PutBucketPublicAccessBlock",),
    "s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": (
        "s3:PutEncryptionConfiguration",
    ),
    "s3/bucketPolicy:BucketPolicy": ("s3:PutBucketPolicy", "s3:DeleteBucketPolicy"),
    "s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": (
        "s3:PutLifecycleConfiguration",
    ),
    "s3/bucketObjectv2:BucketObjectv2": (
        "s3:PutObject",
        "s3:PutObjectTagging",
        "s3:GetObject",
        "s3:DeleteObject",
        "s3:DeleteObjectVersion",
    ),
    "ssm/parameter:Parameter": (
        "ssm:PutParameter",
        "ssm:AddTagsToResource",
        "ssm:GetParameter",
        "ssm:DeleteParameter",
    ),
    "iam/role:Role": ("iam:CreateRole", "iam:TagRole", "iam:PassRole", "iam:DeleteRole"),
    "iam/rolePolicy:RolePolicy": ("iam:PutRolePolicy", "iam:DeleteRolePolicy"),
    "iam/rolePolicyAttachment:RolePolicyAttachment": (
        "iam:AttachRolePolicy",
        "iam:DetachRolePolicy",
    ),
    "iam/instanceProfile:InstanceProfile": (
        "iam:CreateInstanceProfile",
        "iam:TagInstanceProfile",
        "iam:AddRoleToInstanceProfile",
        "iam:RemoveRoleFromInstanceProfile",
        "iam:DeleteInstanceProfile",
    ),
}
NODES = (
    "ec2/securityGroup:SecurityGroup",
    "vpc/securityGroupIngressRule:SecurityGroupIngressRule",
    "vpc/securityGroupEgressRule:SecurityGroupEgressRule",
    "ec2/networkInterface:NetworkInterface",
    "ec2/launchTemplate:LaunchTemplate",
    "ec2/instance:Instance",
)
"""Of EC2's types, those that every stack has."""
NETWORK = (
    "ec2/vpc:Vpc",
    "ec2/subnet:Subnet",
    "ec2/routeTable:RouteTable",
    "ec2/routeTableAssociation:RouteTableAssociation",
    "ec2/vpcEndpoint:VpcEndpoint",
)
PUBLIC_SUBNET = ("ec2/internetGateway:InternetGateway", "ec2/route:Route")
NAT = (*PUBLIC_SUBNET, "ec2/eip:Eip", "ec2/natGateway:NatGateway")
PLACEMENT = ("ec2/placementGroup:PlacementGroup",)
RESERVATION = ("ec2/capacityReservation:CapacityReservation",)
BALANCER = tuple(kind for kind in ACTIONS if kind.startswith("lb/"))
BUCKET = tuple(kind for kind in ACTIONS if kind.startswith("s3/bucket") and "Object" not in kind)
OBJECT = ("s3/bucketObjectv2:BucketObjectv2",)
PARAMETER = ("ssm/parameter:Parameter",)
ROLE = (
    "iam/role:Role",
    "iam/rolePolicy:RolePolicy",
    "iam/rolePolicyAttachment:RolePolicyAttachment",
)
PROFILE = ("iam/instanceProfile:InstanceProfile",)


def of(kinds: Iterable[str]) -> tuple[str, ...]:
    """The actions on resources of these types, each once."""
    return tuple(dict.fromkeys(action for kind in kinds for action in ACTIONS[kind]))
