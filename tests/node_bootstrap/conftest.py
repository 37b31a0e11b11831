"""An account for one node: S3 and SSM as moto serves them, and a metadata service."""

from __future__ import annotations

import http.server
import json
import threading
from dataclasses import dataclass

import boto3
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "moe-serving-test-123456789012"
REGION = "us-east-1"
TOKEN_PARAMETER = "/moe-serving/test/agent-token"
KEY_PARAMETER = "/moe-serving/test/api-key"


class Metadata(http.server.BaseHTTPRequestHandler):
    """IMDSv2: nothing without a token that was asked for with PUT."""

    leaves = {  # noqa: RUF012 - never changed
        "meta-data/instance-id": "i-0123456789abcdef0",
        "meta-data/iam/security-credentials/": "node-role",
        "meta-data/iam/security-credentials/node-role": json.dumps(
            {
                "Code": "Success",
                "Type": "AWS-HMAC",
                "AccessKeyId": "AKIATEST",
                "SecretAccessKey": "secret-of-the-role",
                "Token": "session-token",
                "Expiration": "2099-01-01T00:00:00Z",
                "LastUpdated": "2020-01-01T00:00:00Z",
            }
        ),
    }

    def do_PUT(self):
        self.answer("token" if self.path == "/latest/api/token" else None)

    def do_GET(self):
        allowed = self.headers.get("X-aws-ec2-metadata-token") == "token"
        self.answer(self.leaves.get(self.path.removeprefix("/latest/")) if allowed else None)

    def answer(self, text):
        self.send_response(404 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *args):
        pass


@dataclass
class Account:
    """`env` is what makes a process use it; `s3`, `ssm` are an administrator's clients."""

    endpoint: str
    metadata: str
    s3: object
    ssm: object

    @property
    def env(self):
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.metadata,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }


@pytest.fixture(scope="session")
def _servers():
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    metadata = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=metadata.serve_forever, daemon=True).start()
    yield f"http://{host}:{port}", f"http://127.0.0.1:{metadata.server_port}"
    metadata.shutdown()
    moto.stop()


@pytest.fixture(scope="module")
def account(_servers):
    endpoint, metadata = _servers
    keys = {"aws_access_key_id": "admin", "aws_secret_access_key": "admin", "region_name": REGION}
    s3 = boto3.client("s3", endpoint_url=endpoint, **keys)
    ssm = boto3.client("ssm", endpoint_url=endpoint, **keys)
    s3.create_bucket(Bucket=BUCKET)
    for name, value in ((TOKEN_PARAMETER, "the-token"), (KEY_PARAMETER, "the-key")):
        ssm.put_parameter(Name=name, Value=value, Type="SecureString", Overwrite=True)
    yield Account(endpoint, metadata, s3, ssm)
    for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.delete_object(Bucket=BUCKET, Key=item["Key"])
