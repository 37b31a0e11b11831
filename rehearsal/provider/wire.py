"""What the engine's property bags hold besides JSON: unknowns, secrets and assets."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from google.protobuf import json_format, struct_pb2

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - the protocol's mark of a secret, none itself
_ASSET = "c44067f5952c0a294b673a41bacd8c17"

_REMOTE_SECONDS = 60

Properties = dict[str, Any]


def from_struct(struct: struct_pb2.Struct) -> Properties:
    """A property bag as plain Python: whole numbers become int, secrets lose their wrapping.

    The engine marks secrets again by itself, since the provider says that it does not accept them.
    """
    return _plain(json_format.MessageToDict(struct))


def to_struct(properties: Properties) -> struct_pb2.Struct:
    """The property bag of a plain dict."""
    struct = struct_pb2.Struct()
    json_format.ParseDict(properties, struct)
    return struct


def secret(value: Any) -> Properties:
    """A value that the engine must keep encrypted."""
    return {_SIGNATURE: _SECRET, "value": value}


def has_unknown(value: Any) -> bool:
    """Whether a part of the value will be known only once something else exists."""
    if isinstance(value, dict):
        return any(has_unknown(item) for item in value.values())
    if isinstance(value, list):
        return any(has_unknown(item) for item in value)
    return value == UNKNOWN


def is_asset(value: Any) -> bool:
    """Whether the value is a FileAsset, StringAsset or RemoteAsset."""
    return isinstance(value, dict) and value.get(_SIGNATURE) == _ASSET


def asset_bytes(asset: Properties) -> bytes:
    """What an asset holds.

    Raises:
        OSError: its file or address can't be read.
    """
    if asset.get("path"):
        return Path(asset["path"]).read_bytes()
    if asset.get("uri"):
        address = Request(asset["uri"])  # noqa: S310 - the program's own address
        with urlopen(address, timeout=_REMOTE_SECONDS) as response:  # noqa: S310 - as above
            return response.read()
    return (asset.get("text") or "").encode()


def content_bytes(inputs: Properties) -> bytes:
    """The body that an object's `source`, `content` or `contentBase64` asks for."""
    if is_asset(inputs.get("source")):
        return asset_bytes(inputs["source"])
    if "contentBase64" in inputs:
        return base64.b64decode(inputs["contentBase64"])
    return inputs.get("content", "").encode()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get(_SIGNATURE) == _SECRET:
            return _plain(value["value"])
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
