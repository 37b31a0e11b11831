"""The parts of a launch template: what one launch asks of EC2."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence

import pulumi
import pulumi_aws as aws

from infra.plan.nics import NetworkInterface
from infra.resources.capacity import Launching
from infra.resources.images import GP3_IOPS, Disk
from node_bootstrap import user_data

Interfaces = list[aws.ec2.LaunchTemplateNetworkInterfaceArgs]


def interfaces(
    layout: Sequence[NetworkInterface], primary_id: str, subnet_id: str, group_id: str
) -> Interfaces:
    """All interfaces of a node: the primary one made beforehand, the rest made by the launch.

    Args:
        layout: of the plan, the primary interface first.
        primary_id: the interface that outlives the instance.
        subnet_id: of all others.
        group_id: security group of all others.
    """
    first, *others = layout
    return [
        aws.ec2.LaunchTemplateNetworkInterfaceArgs(
            network_card_index=first.network_card_index,
            device_index=first.device_index,
            network_interface_id=primary_id,
            delete_on_termination="false",
        ),
        *(
            # An efa-only interface takes no field that is about addresses, not even one of `false`.
            aws.ec2.LaunchTemplateNetworkInterfaceArgs(
                network_card_index=nic.network_card_index,
                device_index=nic.device_index,
                interface_type=nic.interface_type,
                subnet_id=subnet_id,
                security_groups=[group_id],
                delete_on_termination="true",
            )
            for nic in others
        ),
    ]


def root_volume(disk: Disk) -> list[aws.ec2.LaunchTemplateBlockDeviceMappingArgs]:
    """An encrypted root volume that ends with its instance."""
    fast = disk.throughput_mib is not None
    return [
        aws.ec2.LaunchTemplateBlockDeviceMappingArgs(
            device_name=disk.device,
            ebs=aws.ec2.LaunchTemplateBlockDeviceMappingEbsArgs(
                encrypted="true",
                volume_type="gp3",
                volume_size=disk.size_gib,
                iops=GP3_IOPS if fast else None,
                throughput=disk.throughput_mib,
                delete_on_termination="true",
            ),
        )
    ]


def placement(way: Launching) -> aws.ec2.LaunchTemplatePlacementArgs | None:
    """The cluster placement group, if there is one."""
    if way.placement_group is None:
        return None
    return aws.ec2.LaunchTemplatePlacementArgs(group_name=way.placement_group)


def reservation(
    way: Launching,
) -> aws.ec2.LaunchTemplateCapacityReservationSpecificationArgs | None:
    """The reservation or Capacity Block that the launch takes, and no other capacity."""
    if way.reservation_id is None:
        return None
    target = aws.ec2.LaunchTemplateCapacityReservationSpecificationCapacityReservationTargetArgs(
        capacity_reservation_id=way.reservation_id
    )
    return aws.ec2.LaunchTemplateCapacityReservationSpecificationArgs(
        capacity_reservation_target=target
    )


def market(way: Launching) -> aws.ec2.LaunchTemplateInstanceMarketOptionsArgs | None:
    """Spot or Capacity Block; None is On-Demand."""
    if way.market is None:
        return None
    spot = aws.ec2.LaunchTemplateInstanceMarketOptionsSpotOptionsArgs(
        # An interrupted node is made anew by the next `up`; a persistent request does it unseen.
        spot_instance_type="one-time",
        instance_interruption_behavior="terminate",
    )
    return aws.ec2.LaunchTemplateInstanceMarketOptionsArgs(
        market_type=way.market, spot_options=spot if way.market == "spot" else None
    )


def tags(
    name: str, given: dict[str, str], layout: Sequence[NetworkInterface]
) -> list[aws.ec2.LaunchTemplateTagSpecificationArgs]:
    """Tags of what a launch makes beside the instance: its own don't reach them."""
    kinds = ["volume", *(["network-interface"] if len(layout) > 1 else [])]
    return [
        aws.ec2.LaunchTemplateTagSpecificationArgs(resource_type=kind, tags={"Name": name, **given})
        for kind in kinds
    ]


def encoded_user_data(bucket: str, node: str, region: str, *, ephemeral: bool = False) -> str:
    """User data as a launch template takes it: gzip without a time stamp, then base64."""
    rendered = user_data.render(bucket, node, region, ephemeral=ephemeral)
    return base64.b64encode(gzip.compress(rendered, mtime=0)).decode()


def known_interfaces(
    layout: Sequence[NetworkInterface],
    primary_id: pulumi.Input[str],
    subnet_id: pulumi.Input[str],
    group_id: pulumi.Input[str],
) -> pulumi.Output[Interfaces]:
    """`interfaces`, as one value: an output in each of 33 interfaces costs seconds per preview."""
    return pulumi.Output.all(primary_id, subnet_id, group_id).apply(
        lambda known: interfaces(layout, *map(str, known))
    )
