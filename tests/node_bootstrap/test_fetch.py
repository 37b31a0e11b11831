"""The fetcher as a node runs it: its own process, metadata service and S3 over HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from node_bootstrap import jsondata
from node_bootstrap.files import fetch
from node_bootstrap.status import Status

BUCKET = "moe-serving-test-123456789012"
FETCH = Path(fetch.__file__)
ARCHIVE = b"an archive"


@pytest.fixture
def node(tmp_path, account):
    """A bare node whose assignment names an archive that is there."""
    (tmp_path / "etc/moe").mkdir(parents=True)
    config = {"bucket": BUCKET, "node": "serve-0-0", "region": "us-east-1"}
    (tmp_path / "etc/moe/node.json").write_text(json.dumps(config))
    publish(account, ARCHIVE)
    return tmp_path


def publish(account, content, sha256=None):
    sha256 = sha256 or hashlib.sha256(content).hexdigest()
    key = f"bootstrap/{sha256}.pyz"
    account.s3.put_object(Bucket=BUCKET, Key=key, Body=content)
    assignment = {"archive": {"key": key, "sha256": sha256}}
    account.s3.put_object(
        Bucket=BUCKET, Key="nodes/serve-0-0/assignment.json", Body=json.dumps(assignment)
    )


def run(node, account, *arguments, seconds="1", python=sys.executable, **env):
    return subprocess.run(
        [python, FETCH, *arguments],
        env={
            **os.environ,
            **account.env,
            "MOE_ROOT": str(node),
            "MOE_FETCH_SECONDS": seconds,
            **env,
        },
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


def status(account):
    body = account.s3.get_object(Bucket=BUCKET, Key="nodes/serve-0-0/status.json")["Body"].read()
    return jsondata.from_json(Status, body)


def test_a_bare_node_gets_the_archive_that_its_assignment_names(node, account):
    done = run(node, account)
    assert done.returncode == 0, done.stderr
    assert (node / "opt/moe/current/moe-node.pyz").read_bytes() == ARCHIVE


def test_an_archive_that_is_there_already_is_not_fetched_again(node, account):
    run(node, account)
    before = (node / "opt/moe/current/moe-node.pyz").stat()
    assert run(node, account).returncode == 0
    assert (node / "opt/moe/current/moe-node.pyz").stat() == before


def test_a_new_archive_takes_the_place_of_the_old_one(node, account):
    run(node, account)
    publish(account, b"a newer archive")
    assert run(node, account).returncode == 0
    assert (node / "opt/moe/current/moe-node.pyz").read_bytes() == b"a newer archive"


def test_a_wrong_digest_on_a_bare_node_is_reported_and_leaves_nothing_to_start(node, account):
    publish(account, b"changed", sha256="0" * 64)
    done = run(node, account)
    assert done.returncode == 1
    assert not (node / "opt/moe/current").exists()
    assert status(account).phase == "failed"
    assert "the archive was changed after the deployment" in status(account).fault.what
    assert status(account).instance_id == "i-0123456789abcdef0"


def test_a_wrong_digest_of_a_new_archive_keeps_the_one_that_runs(node, account):
    run(node, account)
    publish(account, b"changed", sha256="0" * 64)
    done = run(node, account)
    assert done.returncode == 0
    assert "SHA-256" in done.stderr
    assert (node / "opt/moe/current/moe-node.pyz").read_bytes() == ARCHIVE
    assert run(node, account, "--strict").returncode == 1


def test_an_assignment_that_comes_late_is_waited_for(node, account):
    account.s3.delete_object(Bucket=BUCKET, Key="nodes/serve-0-0/assignment.json")
    process = subprocess.Popen(
        [sys.executable, FETCH],
        env={**os.environ, **account.env, "MOE_ROOT": str(node), "MOE_FETCH_SECONDS": "30"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "NoSuchKey" in process.stderr.readline()
    publish(account, ARCHIVE)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_bucket_that_is_not_there_ends_with_its_name_and_the_reason(node, account):
    config = node / "etc/moe/node.json"
    config.write_text(config.read_text().replace(BUCKET, "no-such-bucket-1"))
    done = run(node, account)
    assert done.returncode == 1
    assert "GET s3://no-such-bucket-1/nodes/serve-0-0/assignment.json: HTTP 404" in done.stderr


def test_no_metadata_service_says_so(node, account):
    done = run(node, account, AWS_EC2_METADATA_SERVICE_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "no credentials from the metadata service" in done.stderr


def test_no_secret_is_printed(node, account):
    publish(account, b"changed", sha256="0" * 64)
    done = run(node, account)
    assert "secret-of-the-role" not in done.stdout + done.stderr
    assert "session-token" not in done.stdout + done.stderr


def test_the_signature_is_the_one_that_botocore_makes():
    from botocore.auth import S3SigV4Auth  # noqa: PLC0415
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415
    from botocore.credentials import Credentials  # noqa: PLC0415

    keys = {"AccessKeyId": "AKIA", "SecretAccessKey": "s", "Token": "t"}
    config = {"bucket": BUCKET, "region": "eu-west-1"}
    url = fetch.address(config, "models/a b+c/ü.json")
    digest = hashlib.sha256(b"").hexdigest()
    ours = fetch.sign("GET", url, "eu-west-1", keys, digest)
    request = AWSRequest("GET", url, headers={"X-Amz-Content-SHA256": digest})
    signer = S3SigV4Auth(Credentials("AKIA", "s", "t"), "s3", "eu-west-1")
    request.context["timestamp"] = ours["x-amz-date"]
    request.headers["X-Amz-Date"] = ours["x-amz-date"]
    request.headers["X-Amz-Security-Token"] = "t"
    text = signer.string_to_sign(request, signer.canonical_request(request))
    assert ours["authorization"].endswith(f"Signature={signer.signature(text, request)}")


@pytest.mark.parametrize(
    ("region", "host"),
    [("eu-west-1", "s3.eu-west-1.amazonaws.com"), ("cn-north-1", "s3.cn-north-1.amazonaws.com.cn")],
)
def test_without_an_endpoint_the_bucket_is_in_the_host_name(region, host, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert fetch.address({"bucket": "b", "region": region}, "k/x") == f"https://b.{host}/k/x"
