"""The agent's clients of S3 and SSM."""

from __future__ import annotations

import pytest

from node_bootstrap.agent.store import StoreError, clients


def test_without_credentials_there_are_no_clients_so_that_they_are_looked_for_again(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreError, match="gave no credentials"):
        clients("us-east-1")
