from __future__ import annotations

import gzip
import json
from pathlib import Path

import moto.ec2

from infra import catalog, checks

SHIPPED = Path(moto.ec2.__file__).parent / "resources/instance_type_offerings/availability-zone-id"


def test_offerings_are_those_that_ec2_described():
    held = json.loads((Path(checks.__file__).parent / "offerings.json").read_text())
    wanted = {name for name, kind in catalog.instance_types().items() if kind.gpu_count}
    described: dict[str, dict[str, list[str]]] = {}
    for path in SHIPPED.glob("*.json.gz"):
        found = described.setdefault(path.name.split(".")[0], {})
        for offer in json.loads(gzip.decompress(path.read_bytes())):
            if offer["InstanceType"] in wanted:
                found.setdefault(offer["InstanceType"], []).append(offer["Location"])
    assert held["regions"] == {
        region: {name: sorted(zones) for name, zones in found.items()}
        for region, found in described.items()
    }
