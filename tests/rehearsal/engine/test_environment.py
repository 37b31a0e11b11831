from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rehearsal.engine import (
    Endpoint,
    Engine,
    environment,
    for_child,
    foreign_variables,
    read_endpoint,
)
from rehearsal.paths import Home

ENDPOINT = Endpoint("http://127.0.0.1:4000", "us-east-1", "AKIAEXAMPLE", "very-secret", 1)
ENGINE = Engine(Path("/cache/engine/pulumi"), "3.274.1", built=True)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "rehearsal")


def test_no_variable_leads_past_the_rehearsals_own_folder(home):
    added = environment(home, ENDPOINT, ENGINE)
    assert added["PULUMI_HOME"] == str(home.pulumi_home)
    assert added["PULUMI_BACKEND_URL"] == f"file://{home.pulumi_state}?metadata=skip"
    assert added["AWS_ENDPOINT_URL"] == ENDPOINT.url
    assert added["AWS_CONFIG_FILE"] == added["AWS_SHARED_CREDENTIALS_FILE"] == "/dev/null"


def test_the_backends_folder_exists(home):
    environment(home, ENDPOINT, ENGINE)
    assert home.pulumi_state.is_dir()


def test_the_engine_and_the_venv_come_first_on_path(home):
    first, second, *_ = environment(home, ENDPOINT, ENGINE)["PATH"].split(os.pathsep)
    assert first == "/cache/engine"
    assert second == str(Path(sys.executable).parent)


def test_a_second_eval_does_not_lengthen_path(home, monkeypatch):
    once = environment(home, ENDPOINT, ENGINE)["PATH"]
    monkeypatch.setenv("PATH", once)
    assert environment(home, ENDPOINT, ENGINE)["PATH"] == once


def test_the_passphrase_is_made_once_for_the_owner_alone(home):
    file = Path(environment(home, ENDPOINT, ENGINE)["PULUMI_CONFIG_PASSPHRASE_FILE"])
    passphrase = file.read_text()
    environment(home, ENDPOINT, ENGINE)
    assert len(passphrase) >= 32
    assert file.read_text() == passphrase
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_passphrase_is_in_no_variable(home):
    added = environment(home, ENDPOINT, ENGINE)
    passphrase = Path(added["PULUMI_CONFIG_PASSPHRASE_FILE"]).read_text()
    assert passphrase not in added.values()


def test_what_would_win_over_the_rehearsal_is_taken_away(home):
    given = {
        "AWS_PROFILE": "work",
        "AWS_SESSION_TOKEN": "old",
        "AWS_ENDPOINT_URL_S3": "https://s3.example.com",
        "PULUMI_CONFIG_PASSPHRASE": "",
        "LANG": "C",
    }
    child = for_child(given, environment(home, ENDPOINT, ENGINE))
    assert foreign_variables(child) == []
    assert child["LANG"] == "C"


def test_loopback_goes_round_a_proxy(home, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.example.com:3128")
    monkeypatch.setenv("no_proxy", "intranet")
    added = environment(home, ENDPOINT, ENGINE)
    assert added["NO_PROXY"] == added["no_proxy"] == "intranet,127.0.0.1,localhost"


def test_without_a_proxy_nothing_is_said_of_one(home, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert "NO_PROXY" not in environment(home, ENDPOINT, ENGINE)


def test_boto3_takes_endpoint_region_and_keys_from_it(home):
    child = for_child(os.environ, environment(home, ENDPOINT, ENGINE))
    script = (
        "import boto3; c = boto3.client('s3');"
        "print(c.meta.endpoint_url, c.meta.region_name,"
        "boto3.Session().get_credentials().access_key)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=child, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [ENDPOINT.url, "us-east-1", "AKIAEXAMPLE"]


def test_an_account_that_never_ran_has_no_endpoint(home):
    assert read_endpoint(home) is None


def test_an_endpoint_is_shown_without_its_secret():
    assert "very-secret" not in repr(ENDPOINT)
