"""`python -m rehearsal faults` and `limits` against a running account."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
THROTTLE = [{"kind": "throttle", "action": "DescribeVolumes", "calls": 2}]


@pytest.fixture
def rehearsal(account):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "rehearsal", *arguments],
            cwd=CHECKOUT,
            env={**os.environ, "MOE_REHEARSAL_DIR": str(account.home)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_faults_are_set_shown_and_taken_away(rehearsal):
    rehearsal("faults", json.dumps(THROTTLE))
    assert json.loads(rehearsal("faults").stdout) == {"faults": THROTTLE}
    assert json.loads(rehearsal("faults", "[]").stdout) == {"faults": []}


def test_a_quota_is_set_and_taken_away(rehearsal, account):
    quota = {"ServiceCode": "ec2", "QuotaCode": "L-417A185B"}
    read = account.client("service-quotas").get_service_quota
    rehearsal("limits", '{"region": "us-east-1", "quotas": {"L-417A185B": 384}}')
    assert read(**quota)["Quota"]["Value"] == 384
    rehearsal("limits", '{"region": "us-east-1"}')
    assert read(**quota)["Quota"]["Value"] > 384


def test_a_refused_change_says_why(rehearsal):
    done = rehearsal("faults", '[{"kind": "earthquake"}]')
    assert done.returncode != 0
    assert "kind must be one of" in done.stderr


def test_text_that_is_not_json_is_told(rehearsal):
    done = rehearsal("limits", "{region")
    assert done.returncode != 0
    assert "is not JSON" in done.stderr
