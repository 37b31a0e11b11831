"""Two nodes of a group on this machine: real agents, small engines as their roles."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from node_bootstrap import assignment as a
from node_bootstrap import jsondata
from node_bootstrap.agent.role_process import ProcessRecord
from node_bootstrap.files import fetch
from node_bootstrap.revision import with_revision
from node_bootstrap.status import Status

BUCKET = "moe-serving-test-123456789012"
ENGINE = Path(__file__).parent / "engine.py"
WEIGHTS = b"the weights" * 1000
ADDRESSES = {"serve-0-0": "127.0.0.1", "serve-0-1": "127.0.0.2"}
MAIN = "import sys\nfrom node_bootstrap.cli import main\nsys.exit(main())\n"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Nodes:
    """Both nodes of a group, each below a folder of its own."""

    def __init__(self, folder, account):
        self.folder = folder
        self.account = account
        self.api_port, self.agent_port, self.rpc_port = free_port(), free_port(), free_port()
        self.agents = {}
        self.changes = {}
        self.changes_of = {}
        self.weights = (a.WeightFile("w.bin", len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest()),)
        self.before = 0
        account.s3.put_object(Bucket=BUCKET, Key="models/m/w.bin", Body=WEIGHTS)
        for name in ADDRESSES:
            self.root(name).joinpath("etc/moe").mkdir(parents=True)
            config = {"bucket": BUCKET, "node": name, "region": "us-east-1"}
            self.root(name).joinpath("etc/moe/node.json").write_text(json.dumps(config))

    def root(self, name):
        return self.folder / name

    def assign(self, **changes):
        """Write the assignments of both, with these fields changed; returns their revision."""
        self.changes |= changes
        assignments = with_revision(tuple(self.assignment(name) for name in ADDRESSES))
        for one in assignments:
            key = a.assignment_key(one.node)
            self.account.s3.put_object(Bucket=BUCKET, Key=key, Body=jsondata.to_json(one).encode())
        self.revision = assignments[0].revision
        return self.revision

    def assignment(self, name):
        position = "primary" if name == "serve-0-0" else "headless"
        members = tuple(
            a.Member(n, address, "primary" if rank == 0 else "headless", rank, 1)
            for rank, (n, address) in enumerate(ADDRESSES.items())
        )
        ports = (str(self.api_port), str(self.rpc_port), "1")
        assignment = a.Assignment(
            schema=a.SCHEMA,
            stack="test",
            region="us-east-1",
            bucket=BUCKET,
            node=name,
            group="serve-0",
            role="serve",
            position=position,
            revision="",
            archive=a.Archive("", ""),
            members=members,
            agent_port=self.agent_port,
            api_port=self.api_port,
            agent_token_parameter="/moe-serving/test/agent-token",
            argv=(sys.executable, str(ENGINE), position, ADDRESSES["serve-0-0"], *ports),
            env={"IFNAME": a.PRIMARY_INTERFACE},
            secret_env={"VLLM_API_KEY": "/moe-serving/test/api-key"},
            software=a.Software("venv", sys.executable, {"boto3": version("boto3")}),
            weights=a.Weights(
                BUCKET,
                "models/m",
                str(self.root(name) / "var/lib/moe/models/m"),
                self.weights,
            ),
            hardware=a.Hardware(ADDRESSES[name], 1, 0.1),
            probe=a.Probe("m", "Hello", interval_seconds=0.5, timeout_seconds=5),
            limits=a.Limits(start_seconds=20, stop_seconds=2, silence_seconds=8),
        )
        changes = {**self.changes, **self.changes_of.get(name, {})}
        return dataclasses.replace(assignment, **changes)

    def start(self, name):
        command = [sys.executable, "-m", "node_bootstrap", "--root", self.root(name), "agent"]
        log = self.root(name).joinpath("agent.log").open("ab")
        self.agents[name] = subprocess.Popen(
            [*command, "--supervisor", "process"],
            env={**os.environ, **self.account.env},
            stdout=log,
            stderr=log,
        )

    def kill_agent(self, name):
        self.agents[name].kill()
        self.agents[name].wait()

    def kill_role(self, name):
        os.kill(self.role(name).pid, signal.SIGKILL)

    def role(self, name):
        path = self.root(name) / "var/lib/moe/role.json"
        return jsondata.from_json(ProcessRecord, path.read_bytes())

    def status(self, name="serve-0-0"):
        """The status in the bucket; None while there is none."""
        try:
            body = self.account.s3.get_object(Bucket=BUCKET, Key=a.status_key(name))["Body"]
        except self.account.s3.exceptions.NoSuchKey:
            return None
        return jsondata.from_json(Status, body.read())

    def group(self):
        """The group as its primary tells who has the token; None while it doesn't answer."""
        url = f"http://127.0.0.1:{self.agent_port}/v1/group"
        request = urllib.request.Request(url, headers={"Authorization": "Bearer the-token"})
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
        return None

    def wait(self, what, seconds=120):
        """Wait until `what(group)` is true of the group; the seconds that took."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            group = self.group()
            if group is not None and what(group):
                return time.monotonic() - began
            time.sleep(0.1)
        raise AssertionError(f"after {seconds} s: {self.group()}\n{self.logs()}")

    def wait_ready(self):
        return self.wait(lambda g: g["phase"] == "ready" and g["revision"] == self.revision)

    def wait_fault(self):
        """The seconds until the generation of `before` is over."""
        return self.wait(lambda g: g["generation"] > self.before)

    def cause(self):
        return self.group()["restarts"][-1]["cause"]

    def logs(self):
        return "\n".join(p.read_text()[-3000:] for p in sorted(self.folder.glob("*/agent.log")))

    def close(self):
        for agent in self.agents.values():
            agent.kill()
            agent.wait()
        for name in ADDRESSES:
            with contextlib.suppress(OSError, ValueError):
                os.killpg(self.role(name).pid, signal.SIGKILL)

    def archive(self, comment, sha256=None):
        """Upload an archive; what the assignment is to say of it."""
        path = self.folder / "new.pyz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("__main__.py", MAIN + f"# {comment}\n")
        content = path.read_bytes()
        sha256 = sha256 or hashlib.sha256(content).hexdigest()
        key = f"bootstrap/{sha256}.pyz"
        self.account.s3.put_object(Bucket=BUCKET, Key=key, Body=content)
        return a.Archive(key, sha256)

    def start_from_archive(self, name="serve-0-0"):
        """Fetch the assigned archive as a node does, and run the agent from it."""
        root = self.root(name)
        (root / "opt/moe").mkdir(parents=True, exist_ok=True)
        shutil.copy(fetch.__file__, root / "opt/moe/fetch.py")
        env = {**os.environ, **self.account.env, "MOE_ROOT": str(root), "MOE_FETCH_SECONDS": "1"}
        subprocess.run([sys.executable, root / "opt/moe/fetch.py"], env=env, check=True)
        program = root / "opt/moe/current/moe-node.pyz"
        log = (root / "agent.log").open("ab")
        self.agents[name] = subprocess.Popen(
            [sys.executable, program, "--root", root, "agent", "--supervisor", "process"],
            env=env,
            stdout=log,
            stderr=log,
        )


@pytest.fixture(scope="session")
def make_nodes():
    """(folder, account) -> Nodes."""
    return Nodes
