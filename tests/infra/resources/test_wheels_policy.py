"""Only nodes that build libraries may keep wheels in the stack's bucket."""

from __future__ import annotations

import json

from infra.resources import policies

BUCKET = "arn:aws:s3:::moe-serving-x-123456789012"


def allowed(*, builds: bool) -> dict[str, list[str]]:
    document = json.loads(policies.node(BUCKET, "serve-0-0", [], builds=builds))
    wheels = [s for s in document["Statement"] if "wheels/" in json.dumps(s["Resource"])]
    return {s["Resource"]: s["Action"] for s in wheels}


def test_a_node_that_builds_reads_and_writes_wheels_and_nothing_beside_them():
    assert allowed(builds=True) == {f"{BUCKET}/wheels/*": ["s3:GetObject", "s3:PutObject"]}


def test_any_other_node_has_no_wheels():
    assert allowed(builds=False) == {}
