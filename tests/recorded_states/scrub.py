"""Make a recorded state of an exported one: nothing of the machine, nobody's secrets.

pulumi stack export --show-secrets --stack NAME | python tests/recorded_states/scrub.py > FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
OF_THE_MACHINE = ("sourcePosition", "sourcePositions", "stackTrace", "created", "modified")
MARK, SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
"""Pulumi's own: what a value's kind stands under, and the kind `secret`."""


def scrubbed(state: dict[str, Any]) -> dict[str, Any]:
    """The state without times, places and secrets; secrets stay secrets, of another value."""
    deployment = state["deployment"]
    # The importing stack has a passphrase of its own.
    deployment.pop("secrets_providers", None)
    deployment.pop("metadata", None)
    deployment["manifest"] = {**deployment["manifest"], "time": "2026-01-01T00:00:00Z"}
    resources = [
        {key: _clean(value) for key, value in resource.items() if key not in OF_THE_MACHINE}
        for resource in deployment["resources"]
    ]
    return {**state, "deployment": {**deployment, "resources": resources}}


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get(MARK) == SECRET:
            return {MARK: SECRET, "plaintext": json.dumps("recorded")}
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value.replace(f"{CHECKOUT}/", "") if isinstance(value, str) else value


if __name__ == "__main__":
    json.dump(scrubbed(json.load(sys.stdin)), sys.stdout, indent=1)
    sys.stdout.write("\n")
