from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rehearsal import cli
from rehearsal.paths import CHECKOUT

ENDPOINT = {
    "url": "http://127.0.0.1:9",
    "port": 9,
    "pid": 0,
    "region": "us-east-1",
    "access_key_id": "AKIAEXAMPLE",
    "secret_access_key": "it's secret",
}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "rehearsal"


@pytest.fixture
def account(folder):
    (folder / "account").mkdir(parents=True)
    (folder / "account" / "endpoint.json").write_text(json.dumps(ENDPOINT))
    return folder


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rehearsal", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "MOE_REHEARSAL_DIR": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_env_without_an_account_is_an_error_and_exports_nothing(folder):
    done = run(folder, "env")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "make up" in done.stderr
    assert not folder.exists()


def test_env_prints_what_a_shell_can_evaluate(account):
    done = run(account, "env", AWS_SESSION_TOKEN="from another account")
    assert done.returncode == 0
    words = [shlex.split(line) for line in done.stdout.splitlines()]
    assert ["unset", "AWS_SESSION_TOKEN"] in words
    exported = dict(rest[0].split("=", 1) for verb, *rest in words if verb == "export")
    assert exported["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9"
    assert exported["AWS_SECRET_ACCESS_KEY"] == "it's secret"
    assert exported["PULUMI_HOME"].startswith(str(account))


def test_env_prints_only_exports_where_nothing_is_in_the_way(account):
    done = run(account, "env")
    unexpected = [line for line in done.stdout.splitlines() if not line.startswith("export ")]
    assert [line for line in unexpected if not line.startswith("unset ")] == []


def test_an_unknown_stack_is_an_error_that_makes_nothing(folder):
    done = run(folder, "up", "--stack", "no-such-stack")
    assert done.returncode == 1
    assert "Pulumi.no-such-stack.yaml" in done.stderr
    assert "Traceback" not in done.stderr
    assert not folder.exists()


def test_down_of_nothing_says_so_and_succeeds(folder):
    done = run(folder, "down")
    assert done.returncode == 0
    assert "has nothing here" in done.stdout
    assert not folder.exists()


def test_a_console_needs_the_account(folder):
    done = run(folder, "console", "serve-0-0")
    assert done.returncode == 1
    assert "isn't running" in done.stderr


def test_the_real_provider_is_asked_for_only_where_it_is_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(cli.DriverError, match=r"pulumi plugin install resource aws v7\.51\.1"):
        cli.plugin.installed_real("7.51.1")


def test_the_command_to_paste_keeps_the_key_out_of_every_argument():
    shown = cli.how_to_ask("rehearsal", "it's-a-model")
    (curl,) = [line for line in shown.splitlines() if "curl" in line]
    assert "-H @-" in curl
    assert "api_key" not in curl
    done = subprocess.run(["sh", "-n"], input=shown.partition(":")[2], text=True, check=False)
    assert done.returncode == 0


def test_an_endpoint_with_its_own_authority_is_asked_with_that_certificate():
    shown = cli.how_to_ask("rehearsal-pd", "tiny", own_authority=True)
    fetched = "pulumi stack output --stack rehearsal-pd ca_certificate > build/ca.pem\n"
    assert fetched in shown
    assert "--cacert build/ca.pem" in shown.partition(fetched)[2]
    assert "ca.pem" not in cli.how_to_ask("rehearsal", "tiny")


def test_the_command_to_paste_sends_the_models_name_as_json(tmp_path):
    for name, script in (
        ("pulumi", 'case "$*" in *api_key*) echo the-key;; *) echo http://10.0.0.1:8000/v1;; esac'),
        ("curl", 'printf "%s\\n" "$@"; cat'),
        ("make", "echo"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    pasted = cli.how_to_ask("rehearsal", "it's-a-model").partition(":")[2]
    done = subprocess.run(
        ["sh", "-c", pasted],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    said = done.stdout.splitlines()
    assert json.loads(said[said.index("-d") + 1])["model"] == "it's-a-model"
    assert "http://10.0.0.1:8000/v1/completions" in said
    assert said[-1] == "Authorization: Bearer the-key"
