#!/usr/bin/python3
"""Bring the bootstrap archive that this node's assignment names to /opt/moe/current.

Standard library only, Python 3.11 and later: it runs before anything is installed.
Exit 0: /opt/moe/current can be started (with --strict: and is what the assignment names).
"""

# ruff: noqa: S310 - its addresses are the metadata service and S3
import contextlib
import datetime as dt
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(os.environ.get("MOE_ROOT", "/"))
CONFIG = ROOT / "etc/moe/node.json"
HOME = ROOT / "opt/moe"
ARCHIVE = "moe-node.pyz"
# A node without an archive has nothing better to do than to wait for one; an agent that only
# restarts must be back before its group counts it as gone.
FIRST_SECONDS = float(os.environ.get("MOE_FETCH_SECONDS", "60"))
AGAIN_SECONDS = 1.5
IMDS = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class FetchError(Exception):
    """Why the archive could not be had. final: trying again soon can't help."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


def metadata(path: str, timeout: float = 2) -> str:
    """One value of the instance metadata service (version 2: with a session token)."""
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
    request = urllib.request.Request(IMDS + "/latest/api/token", method="PUT", headers=ttl)
    with DIRECT.open(request, timeout=timeout) as answer:
        token = answer.read().decode()
    request = urllib.request.Request(
        f"{IMDS}/latest/{path}", headers={"X-aws-ec2-metadata-token": token}
    )
    with DIRECT.open(request, timeout=timeout) as answer:
        return answer.read().decode()


def credentials(timeout: float) -> dict:
    """Temporary credentials of the instance's role."""
    folder = "meta-data/iam/security-credentials/"
    role = metadata(folder, timeout).split("\n")[0].strip()
    return json.loads(metadata(folder + role, timeout))


def address(config: dict, key: str) -> str:
    """URL of an object: AWS_ENDPOINT_URL takes the bucket in the path, S3 in the host."""
    path = "/" + urllib.parse.quote(key, safe="/-_.~")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        return f"{endpoint.rstrip('/')}/{config['bucket']}{path}"
    suffix = "amazonaws.com.cn" if config["region"].startswith("cn-") else "amazonaws.com"
    return f"https://{config['bucket']}.s3.{config['region']}.{suffix}{path}"


def sign(method: str, url: str, region: str, keys: dict, digest: str) -> dict:
    """Headers of an S3 request, signed with Signature Version 4."""
    parts = urllib.parse.urlsplit(url)
    now = dt.datetime.now(dt.UTC)
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": parts.netloc, "x-amz-content-sha256": digest, "x-amz-date": stamp}
    if keys.get("Token"):
        headers["x-amz-security-token"] = keys["Token"]
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = f"{method}\n{parts.path}\n\n{lines}\n{names}\n{digest}"
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    key = b"AWS4" + keys["SecretAccessKey"].encode()
    for part in (stamp[:8], region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}"
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys['AccessKeyId']}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return headers


def s3(config: dict, method: str, key: str, body: bytes = b"") -> bytes:
    """One S3 request; the answer's body. Network faults and refusals are a FetchError."""
    url = address(config, key)
    where = f"s3://{config['bucket']}/{key}"
    try:
        keys = credentials(config["timeout"])
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise FetchError(
            f"no credentials from the metadata service ({error}): does the instance have a profile?"
        ) from error
    digest = hashlib.sha256(body).hexdigest()
    headers = sign(method, url, config["region"], keys, digest)
    # Without this urllib calls the body a form, and some S3 servers then read it as one.
    headers["content-type"] = "application/json"
    data = body if method == "PUT" else None
    request = urllib.request.Request(url, method=method, headers=headers, data=data)
    try:
        with urllib.request.urlopen(request, timeout=config["timeout"]) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        code = error.read(400).decode(errors="replace").partition("<Code>")[2].partition("<")[0]
        reason = f"{method} {where}: HTTP {error.code} {code or error.reason}"
        if error.code == 403:
            reason += "; the node's role must allow this (or the role is seconds old)"
        raise FetchError(reason) from error
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(f"{method} {where}: {error}") from error


def wanted(config: dict) -> tuple[str, str]:
    """(key, sha256) of the archive that the assignment names."""
    key = f"nodes/{config['node']}/assignment.json"
    try:
        archive = json.loads(s3(config, "GET", key))["archive"]
        return archive["key"], archive["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise FetchError(f"{key} names no archive: {error!r}", final=True) from error


def current() -> str:
    """SHA-256 of the archive that /opt/moe/current holds; empty when there is none."""
    link = HOME / "current"
    return link.resolve().name if (link / ARCHIVE).is_file() else ""


def install(config: dict, key: str, sha256: str) -> None:
    """Fetch an archive, check it, and switch /opt/moe/current to it in one rename."""
    content = s3(config, "GET", key)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise FetchError(
            f"s3://{config['bucket']}/{key} has SHA-256 {found}, the assignment says {sha256}: "
            "the archive was changed after the deployment; run the deployment again",
            final=True,
        )
    folder = HOME / "archives" / sha256
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / (ARCHIVE + ".new")
    with temporary.open("wb") as file:
        file.write(content)
        os.fsync(file.fileno())
    temporary.replace(folder / ARCHIVE)
    link = HOME / "current.new"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.relative_to(HOME))
    link.replace(HOME / "current")


def report(config: dict, reason: str) -> None:
    """Say in the bucket why this node can't start; best effort, the console has it too."""
    with contextlib.suppress(OSError, http.client.HTTPException, FetchError):
        now = time.time()
        status = {
            "schema": 1,
            "node": config["node"],
            "instance_id": metadata("meta-data/instance-id"),
            "boot_id": pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "updated_at": now,
            "phase": "failed",
            "archive_sha256": current(),
            "fault": {"at": now, "what": reason, "generation": 0, "log_tail": ""},
        }
        s3(config, "PUT", f"nodes/{config['node']}/status.json", json.dumps(status).encode())


def main(*, strict: bool) -> int:
    """Try until the archive is there or time is up; 0 when /opt/moe/current can be started."""
    before = current()
    again = bool(before) and not strict
    config = json.loads(CONFIG.read_text()) | {"timeout": 1 if again else 10}
    end = time.monotonic() + (AGAIN_SECONDS if again else FIRST_SECONDS)
    pause, reported = 0.3, False
    while True:
        try:
            key, sha256 = wanted(config)
            if sha256 != before:
                install(config, key, sha256)
                print(f"moe-fetch: archive {sha256[:12]} is in place", flush=True)
        except FetchError as error:
            print(f"moe-fetch: {error}", file=sys.stderr, flush=True)
            late = time.monotonic() + pause > end
            if not before and not reported and (error.final or late):
                report(config, str(error))
                reported = True
            if late or (error.final and (before or strict)):
                return 0 if again else 1
        else:
            return 0
        time.sleep(pause)
        pause = min(pause * 1.6, 10)


if __name__ == "__main__":
    sys.exit(main(strict="--strict" in sys.argv[1:]))
