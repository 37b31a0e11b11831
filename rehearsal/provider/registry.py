"""All resource types that this provider knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehearsal.provider import (
    ec2_addresses,
    ec2_endpoints,
    ec2_instances,
    ec2_interfaces,
    ec2_network,
    ec2_placement,
    ec2_routing,
    ec2_security,
    ec2_templates,
    elb,
    elb_listeners,
    elb_targets,
    iam,
    s3,
    s3_objects,
    s3_settings,
    ssm,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rehearsal.provider.resource import Resource

_ALL: tuple[Resource, ...] = (
    ec2_network.Vpc(),
    ec2_network.Subnet(),
    ec2_network.InternetGateway(),
    ec2_interfaces.NetworkInterface(),
    ec2_addresses.Eip(),
    ec2_addresses.NatGateway(),
    ec2_routing.RouteTable(),
    ec2_routing.Route(),
    ec2_routing.RouteTableAssociation(),
    ec2_endpoints.VpcEndpoint(),
    ec2_security.SecurityGroup(),
    ec2_security.SecurityGroupIngressRule(),
    ec2_security.SecurityGroupEgressRule(),
    ec2_templates.LaunchTemplate(),
    ec2_instances.Instance(),
    ec2_placement.PlacementGroup(),
    ec2_placement.CapacityReservation(),
    s3.Bucket(),
    s3_objects.BucketObjectv2(),
    s3_settings.BucketPublicAccessBlock(),
    s3_settings.BucketVersioning(),
    s3_settings.BucketServerSideEncryptionConfiguration(),
    s3_settings.BucketLifecycleConfiguration(),
    s3_settings.BucketPolicy(),
    ssm.Parameter(),
    iam.Role(),
    iam.RolePolicy(),
    iam.RolePolicyAttachment(),
    iam.InstanceProfile(),
    elb.LoadBalancer(),
    elb_targets.TargetGroup(),
    elb_targets.TargetGroupAttachment(),
    elb_listeners.Listener(),
)

RESOURCES: Mapping[str, Resource] = {resource.pulumi_type: resource for resource in _ALL}
