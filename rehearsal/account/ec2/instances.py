"""Actions on instances: run, start, stop, reboot, terminate, console, attributes."""

from __future__ import annotations

import base64
import sys
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.exceptions import OperationDisableApiStopNotPermitted, OperationNotPermitted4
from moto.ec2.models.instances import InstanceState, MetadataOptions, Reservation
from moto.ec2.utils import parse_user_data

from rehearsal.account.ec2.base import Action
from rehearsal.account.ec2.errors import refuse
from rehearsal.account.ec2.launches import carry_out, digest_of, prepare, repeated
from rehearsal.account.ec2.models import Instance
from rehearsal.account.ec2.refusals import USER_DATA_BYTES

STOPPED_ONLY = ("InstanceType", "Kernel", "UserData", "EbsOptimized")
"""Attributes that EC2 changes on stopped instances only."""


class Instances(Action):
    """RunInstances and what follows it."""

    def _instances(self) -> list[Instance]:
        ids = self.parameter("InstanceIds", [])
        if not ids:
            raise refuse("MissingParameter", "The request must contain the parameter InstanceId")
        return [self.backend.get_instance(i) for i in ids]

    def run_instances(self) -> ActionResult:
        """Launch: template merged in, checked as EC2 checks, all interfaces, then booted."""
        token = self.parameter("ClientToken")
        digest = digest_of(self.params)
        earlier = repeated(self.backend, token, digest)
        if earlier is not None:
            return ActionResult(earlier)
        request, template_tags = prepare(self.backend, self.params)
        life = self.account.life
        life.check_bootable(self.backend, request.image_id)
        self.dry_run()
        fault = self.account.faults.launching(request.count)
        if fault:
            raise fault.error()
        reservation = carry_out(self.backend, request, template_tags, boots=life.boot)
        if token:
            self.backend.client_tokens[token] = (digest, reservation.id)
        self._boot(reservation, token)
        return ActionResult(reservation)

    def _boot(self, reservation: Reservation, token: str | None) -> None:
        try:
            for instance in reservation.instances:
                assert isinstance(instance, Instance)  # noqa: S101  # carry_out makes ours
                self.account.life.launch(self.backend, instance)
        except Exception:
            # All or nothing: what was booted before the failure must not stay, and the same
            # token must be able to try again.
            for instance in reservation.instances:
                if isinstance(instance, Instance) and instance.state == "pending":
                    self.account.life.terminate(instance)
            self.backend.client_tokens.pop(token or "", None)
            raise

    def terminate_instances(self) -> ActionResult:
        """Begin to end instances; protected ones are refused."""
        instances = self._instances()
        for instance in instances:
            if instance.disable_api_termination is True:
                raise OperationNotPermitted4(instance.id)
        self.dry_run()
        # Load balancers drop their targets; where none was ever made there is nothing to tell.
        elb = sys.modules.get("moto.elbv2.models")
        if elb:
            ids = [i.id for i in instances]
            elb.elbv2_backends[self.current_account][self.region].notify_terminate_instances(ids)
        changes = [(i, self.account.life.terminate(i)) for i in instances]
        return ActionResult({"TerminatingInstances": _changes(changes)})

    def stop_instances(self) -> ActionResult:
        """Begin to stop instances; protected ones are refused."""
        instances = self._instances()
        for instance in instances:
            if instance.disable_api_stop is True:
                raise OperationDisableApiStopNotPermitted(instance.id)
        self.dry_run()
        force = bool(self.parameter("Force"))
        changes = [(i, self.account.life.stop(i, force=force)) for i in instances]
        return ActionResult({"StoppingInstances": _changes(changes)})

    def start_instances(self) -> ActionResult:
        """Begin to boot stopped instances again."""
        instances = self._instances()
        self.dry_run()
        changes = [(i, self.account.life.start(i)) for i in instances]
        return ActionResult({"StartingInstances": _changes(changes)})

    def reboot_instances(self) -> ActionResult:
        """Restart the instances' own init."""
        instances = self._instances()
        self.dry_run()
        for instance in instances:
            self.account.life.reboot(instance)
        return EmptyResult()

    def get_console_output(self) -> ActionResult:
        """The last 64 KiB of the console, as EC2 keeps it."""
        instance = self.backend.get_instance(self.parameter("InstanceId"))
        output = self.account.life.console(instance)[-64 * 1024 :]
        encoded = Base64EncodedString(base64.b64encode(output).decode())
        return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), "Output": encoded})

    def describe_instance_attribute(self) -> ActionResult:
        """One attribute; EC2 gives the shutdown behavior and the rest also for our class."""
        attribute = self.parameter("Attribute")
        instance = self.backend.get_instance(self.parameter("InstanceId"))
        if attribute == "userData":
            value = {"Value": instance.user_data} if instance.user_data else {}
            return ActionResult({"InstanceId": instance.id, "UserData": value})
        return super().describe_instance_attribute()  # pyright: ignore[reportAttributeAccessIssue]  # moto's mixin, joined in api.py

    def modify_instance_attribute(self) -> ActionResult:
        """Change one attribute, by its structure or by Attribute and Value."""
        instance = self.backend.get_instance(self.parameter("InstanceId"))
        given = {
            name: value
            for name in (*STOPPED_ONLY, *ATTRIBUTES)
            if (value := self.parameter(f"{name}.Value")) is not None
        }
        attribute = self.parameter("Attribute")
        if attribute and self.parameter("Value") is not None:
            given[attribute[0].upper() + attribute[1:]] = self.parameter("Value")
        stopped_only = [n for n in given if n in STOPPED_ONLY]
        if stopped_only and instance.state != "stopped":
            raise refuse(
                "IncorrectInstanceState",
                f"The instance '{instance.id}' is not in the 'stopped' state: "
                f"{stopped_only[0]} can be changed on stopped instances only.",
            )
        self.dry_run()
        for name, value in given.items():
            _set_attribute(instance, name, value)
        groups = self.parameter("Groups", [])
        if groups:
            self.backend.modify_network_interface_attribute(instance.nics[0].id, groups)
            instance.security_groups = list(instance.nics[0].group_set)
        _set_block_devices(instance, self.parameter("BlockDeviceMappings", []))
        return EmptyResult()

    def modify_instance_metadata_options(self) -> ActionResult:
        """Change the given options; moto resets those that are not given."""
        instance = self.backend.get_instance(self.parameter("InstanceId"))
        now = instance.metadata_options
        names = (
            "HttpTokens",
            "HttpPutResponseHopLimit",
            "HttpEndpoint",
            "HttpProtocolIpv6",
            "InstanceMetadataTags",
        )
        current = (
            now.http_tokens,
            now.http_put_response_hop_limit,
            now.http_endpoint,
            now.http_protocol_ipv6,
            now.instance_metadata_tags,
        )
        options = {
            name: self.parameter(name, value) for name, value in zip(names, current, strict=True)
        }
        self.dry_run()
        instance.metadata_options = MetadataOptions(options)
        return ActionResult(
            {"InstanceId": instance.id, "InstanceMetadataOptions": instance.metadata_options}
        )


ATTRIBUTES = {
    "DisableApiTermination": "disable_api_termination",
    "DisableApiStop": "disable_api_stop",
    "SourceDestCheck": "source_dest_check",
    "InstanceInitiatedShutdownBehavior": "instance_initiated_shutdown_behavior",
}
STOPPED_ATTRIBUTES = {
    "InstanceType": "instance_type",
    "Kernel": "kernel",
    "EbsOptimized": "ebs_optimized",
}


def _set_attribute(instance: Instance, name: str, value: Any) -> None:
    if name == "UserData":
        encoded = parse_user_data(value)
        if encoded and len(base64.b64decode(str(encoded))) > USER_DATA_BYTES:
            raise refuse(
                "InvalidParameterValue", f"User data is limited to {USER_DATA_BYTES} bytes"
            )
        instance.user_data = encoded
        return
    field = {**ATTRIBUTES, **STOPPED_ATTRIBUTES}.get(name)
    if field is None:
        raise refuse("InvalidParameterValue", f"Value ({name}) for parameter attribute is invalid.")
    if isinstance(value, str) and value.lower() in ("true", "false"):
        value = value.lower() == "true"
    setattr(instance, field, value)
    if name == "SourceDestCheck":
        instance.nics[0].source_dest_check = value


def _set_block_devices(instance: Instance, mappings: list[dict[str, Any]]) -> None:
    for mapping in mappings:
        delete = (mapping.get("Ebs") or {}).get("DeleteOnTermination")
        if delete is not None:
            instance.block_device_mapping[mapping["DeviceName"]].delete_on_termination = delete


def _changes(pairs: list[tuple[Instance, InstanceState]]) -> list[dict[str, Any]]:
    return [
        {
            "InstanceId": instance.id,
            "CurrentState": {"Code": instance.state_code, "Name": instance.state},
            "PreviousState": {"Code": before.code, "Name": before.name},
        }
        for instance, before in pairs
    ]
