from __future__ import annotations

from pathlib import Path

import pytest

from infra.preflight.run import CHECKS

PAGE = Path(__file__).parents[3] / "docs/preflight.md"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_the_page_names_every_check_and_its_permissions(check):
    (row,) = (r for r in PAGE.read_text().splitlines() if r.startswith(f"| {check.code} "))
    missing = [permission for permission in check.permissions if permission not in row]
    assert missing == []
