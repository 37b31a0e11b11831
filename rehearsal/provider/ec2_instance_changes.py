"""What of a running instance changes in place, one API call each."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from rehearsal.provider import ec2
from rehearsal.provider.ec2_instance_life import (
    PROPAGATION_SECONDS,
    find,
    in_state,
    profile_unseen,
)
from rehearsal.provider.shapes import tag_list

if TYPE_CHECKING:
    from rehearsal.provider.resource import Call, Change, Inputs

_VALUES = ("disableApiTermination", "disableApiStop", "instanceInitiatedShutdownBehavior")
_STOPPED_ONLY = ("instanceType", "userData", "userDataBase64")
_OPTIONS = {
    "metadataOptions": "ModifyInstanceMetadataOptions",
    "maintenanceOptions": "ModifyInstanceMaintenanceOptions",
}
_VOLUME = {
    "volumeSize": "Size",
    "volumeType": "VolumeType",
    "iops": "Iops",
    "throughput": "Throughput",
}
UPDATABLE = frozenset(
    {
        *_VALUES, *_STOPPED_ONLY, *_OPTIONS, "volumeTags", "iamInstanceProfile",
        "vpcSecurityGroupIds", "monitoring", "capacityReservationSpecification",
        "rootBlockDevice", "sourceDestCheck", "launchTemplate", "forceDestroy",
        "userDataReplaceOnChange",
    }
)  # fmt: skip


def apply(call: Call, rid: str, change: Change) -> None:
    """Bring a running instance to what the update asks for; it stops only where EC2 demands it."""
    _attributes(call, rid, change)
    _options(call, rid, change)
    if change.any("volumeTags"):
        wanted = tag_list(change.new.get("volumeTags") or {})
        for volume in _volumes(call, rid):
            call.client("ec2").create_tags(Resources=[volume], Tags=wanted)
    if change.any("iamInstanceProfile"):
        _profile(call, rid, change.new.get("iamInstanceProfile"))
    if change.any("rootBlockDevice"):
        _root_volume(call, change)
    if change.any(*_STOPPED_ONLY):
        _while_stopped(call, rid, change)


def _attributes(call: Call, rid: str, change: Change) -> None:
    client, new = call.client("ec2"), change.new
    if change.any("vpcSecurityGroupIds"):
        client.modify_instance_attribute(InstanceId=rid, Groups=new["vpcSecurityGroupIds"])
    for name in _VALUES:
        if change.any(name):
            value = {name[0].upper() + name[1:]: {"Value": new.get(name, False)}}
            client.modify_instance_attribute(InstanceId=rid, **value)
    if change.any("monitoring"):
        on = new.get("monitoring")
        switch = client.monitor_instances if on else client.unmonitor_instances
        switch(InstanceIds=[rid])


def _options(call: Call, rid: str, change: Change) -> None:
    client = call.client("ec2")
    for name, operation in _OPTIONS.items():
        if change.any(name) and change.new.get(name):
            asked = ec2.parameters(call, operation, dict(change.new[name]))
            _method(client, operation)(InstanceId=rid, **asked)
    name, operation = (
        "capacityReservationSpecification",
        "ModifyInstanceCapacityReservationAttributes",
    )
    if change.any(name):
        asked = ec2.parameters(call, operation, {name: change.new[name]})
        _method(client, operation)(InstanceId=rid, **asked)


def _method(client: Any, operation: str) -> Any:
    names = client.meta.method_to_api_mapping
    return getattr(client, next(name for name, api in names.items() if api == operation))


def _profile(call: Call, rid: str, profile: str | None) -> None:
    client = call.client("ec2")
    mine = [{"Name": "instance-id", "Values": [rid]}]
    found = client.describe_iam_instance_profile_associations(Filters=mine)
    current = [
        entry["AssociationId"]
        for entry in found["IamInstanceProfileAssociations"]
        if entry["State"] in ("associated", "associating")
    ]
    if not profile:
        for association in current:
            client.disassociate_iam_instance_profile(AssociationId=association)
        return
    asked: dict[str, Any] = {"IamInstanceProfile": {"Name": profile}}
    if current:
        asked["AssociationId"] = current[0]
        do = client.replace_iam_instance_profile_association
    else:
        asked["InstanceId"] = rid
        do = client.associate_iam_instance_profile
    call.retry(lambda: do(**asked), profile_unseen, PROPAGATION_SECONDS)


def _volumes(call: Call, rid: str) -> list[str]:
    mappings = (find(call, rid) or {}).get("BlockDeviceMappings") or []
    return [mapping["Ebs"]["VolumeId"] for mapping in mappings if "Ebs" in mapping]


def _root_volume(call: Call, change: Change) -> None:
    volume = (change.state.get("rootBlockDevice") or {}).get("volumeId")
    root: Inputs = change.new.get("rootBlockDevice") or {}
    wanted = {api: root[key] for key, api in _VOLUME.items() if key in root}
    if volume and wanted:
        call.client("ec2").modify_volume(VolumeId=volume, **wanted)


def _while_stopped(call: Call, rid: str, change: Change) -> None:
    """The type and the user data of an instance change only while it is stopped."""
    client, new = call.client("ec2"), change.new
    client.stop_instances(InstanceIds=[rid])
    call.wait(f"{rid} to stop", lambda: in_state(call, rid, "stopped"))
    if change.any("instanceType"):
        kind = {"Value": new["instanceType"]}
        client.modify_instance_attribute(InstanceId=rid, InstanceType=kind)
    if change.any("userData", "userDataBase64"):
        raw = base64.b64decode(new.get("userDataBase64", "")) or new.get("userData", "").encode()
        client.modify_instance_attribute(InstanceId=rid, UserData={"Value": raw})
    client.start_instances(InstanceIds=[rid])
    call.wait(f"{rid} to run", lambda: in_state(call, rid, "running"))
