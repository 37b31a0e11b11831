"""Parameters of Systems Manager."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehearsal.provider import errors, shapes
from rehearsal.provider.naming import Naming
from rehearsal.provider.resource import Call, Change, Inputs, Resource, State
from rehearsal.provider.tags import difference

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME_LENGTH = 2048


class Parameter(Resource):
    """A parameter; its id is its name."""

    pulumi_type = "aws:ssm/parameter:Parameter"
    updatable = frozenset(
        {"type", "value", "insecureValue", "description", "keyId", "tier", "allowedPattern",
         "dataType", "overwrite"}
    )  # fmt: skip
    force_new = frozenset({"name", "region"})
    computed = frozenset(
        {"arn", "dataType", "insecureValue", "keyId", "overwrite", "tier", "value"}
    )
    naming = Naming(max_length=_NAME_LENGTH, prefix_key=None)
    not_imported = frozenset({"arn", "insecureValue", "keyId"})
    unsupported = frozenset({"valueWo", "valueWoVersion"})

    def check(self, inputs: Inputs) -> list[tuple[str, str]]:
        if "value" in inputs and "insecureValue" in inputs:
            return [("insecureValue", "insecureValue conflicts with value")]
        return []

    def create(self, call: Call, inputs: Inputs) -> str:
        asked = self._request(inputs)
        wanted = inputs.get("tagsAll") or {}
        if inputs.get("overwrite"):
            asked["Overwrite"] = True  # the API takes no tags with an overwrite
        elif wanted:
            asked["Tags"] = shapes.tag_list(wanted)
        call.client("ssm").put_parameter(**asked)
        if inputs.get("overwrite") and wanted:
            self._add_tags(call, inputs["name"], wanted)
        return inputs["name"]

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        client = call.client("ssm")
        try:
            found = client.get_parameter(Name=rid, WithDecryption=True)["Parameter"]
        except Exception as error:
            if errors.gone(error):
                return None
            raise
        equal = [{"Key": "Name", "Option": "Equals", "Values": [rid]}]
        about = client.describe_parameters(ParameterFilters=equal)["Parameters"]
        detail = about[0] if about else {}
        answer = client.list_tags_for_resource(ResourceType="Parameter", ResourceId=rid)
        value = found["Value"]
        return {
            "name": found["Name"],
            "type": found["Type"],
            "value": value,
            "insecureValue": value if "insecureValue" in known and _open(found) else None,
            "version": found["Version"],
            "arn": found["ARN"],
            "dataType": found.get("DataType", "text"),
            "description": detail.get("Description") or None,
            "allowedPattern": detail.get("AllowedPattern") or None,
            "keyId": detail.get("KeyId") if found["Type"] == "SecureString" else None,
            "tier": detail.get("Tier", "Standard"),
            "hasValueWo": False,
            "tagsAll": shapes.tag_map(answer["TagList"]),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        if change.keys - {"tags", "tagsAll", "overwrite"}:
            call.client("ssm").put_parameter(**self._request(change.new), Overwrite=True)
        if change.any("tagsAll"):
            wanted, gone = difference(change)
            client = call.client("ssm")
            if gone:
                client.remove_tags_from_resource(
                    ResourceType="Parameter", ResourceId=rid, TagKeys=gone
                )
            if wanted:
                self._add_tags(call, rid, wanted)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        call.client("ssm").delete_parameter(Name=rid)

    def unknown_after(self, changed: Iterable[str]) -> frozenset[str]:
        changes = set(changed) - {"tags", "tagsAll", "overwrite"}
        return frozenset({"version"} if changes else ())

    def _request(self, inputs: Inputs) -> dict[str, Any]:
        fields = {
            "name": "Name", "type": "Type", "description": "Description", "keyId": "KeyId",
            "tier": "Tier", "allowedPattern": "AllowedPattern", "dataType": "DataType",
        }  # fmt: skip
        asked = {api: inputs[key] for key, api in fields.items() if inputs.get(key)}
        return {**asked, "Value": inputs.get("value", inputs.get("insecureValue", ""))}

    def _add_tags(self, call: Call, rid: str, wanted: dict[str, str]) -> None:
        call.client("ssm").add_tags_to_resource(
            ResourceType="Parameter", ResourceId=rid, Tags=shapes.tag_list(wanted)
        )


def _open(found: dict[str, Any]) -> bool:
    return found["Type"] != "SecureString"
