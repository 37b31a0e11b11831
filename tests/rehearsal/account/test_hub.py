"""The Hub beside the account: served under its own path, told by control, with no signature."""

from __future__ import annotations

import json
import urllib.request

import pytest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def test_a_folder_that_is_named_is_served_at_its_commit(account, folder):
    served = {"repository": "org/tiny", "folder": str(folder)}
    _, told = account.control("PUT", "hub", {"repositories": [served]})
    commit = told["repositories"][0]["commit"]
    url = f"{account.endpoint['url']}/_hub/api/models/org/tiny/revision/{commit}?blobs=true"
    assert get(url)["siblings"][0]["rfilename"] == "config.json"
    assert get(f"{account.endpoint['url']}/_hub/org/tiny/resolve/{commit}/config.json") == {}
