"""A rehearsal driven as a user drives it, and requests on it while something happens."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
import yaml

from infra.names import NODE_TAG
from node_bootstrap import jsondata
from node_bootstrap.assignment import status_key
from node_bootstrap.status import GroupReport, Status
from rehearsal.machine import inside, netns
from rehearsal.paths import Home

T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parents[2]
NODES = ("serve-0-0", "serve-0-1")
PRIMARY, HEADLESS = NODES
MODEL = "tiny-qwen3-moe"
PROMPTS = ("The experts", "A router sends each token", "Once upon a time")


@dataclass
class Answer:
    """One HTTP answer: 0 where there was none."""

    code: int
    body: dict[str, Any]
    seconds: float

    @property
    def text(self) -> str:
        return self.body["choices"][0]["text"]


def client_of(account: Mapping[str, str], service: str, region: str) -> Any:
    """A client with the keys that an account's endpoint.json names."""
    make: Any = boto3.client
    return make(
        service,
        endpoint_url=account["url"],
        region_name=region,
        aws_access_key_id=account["access_key_id"],
        aws_secret_access_key=account["secret_access_key"],
    )


@dataclass
class Rehearsed:
    """The stack `rehearsal` of one rehearsal folder, driven as a user drives it."""

    root: Path
    stacks: Path
    env: dict[str, str] = field(default_factory=dict)
    clients: dict[str, Any] = field(default_factory=dict)

    def command(self, verb: str, *options: str) -> list[str]:
        return [sys.executable, "-m", "rehearsal", verb, *options]

    def run(
        self, verb: str, *options: str, check: bool = True, timeout: float = 1200
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(verb, *options),
            cwd=CHECKOUT,
            env=self.outer_env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{verb} ended with {done.returncode}:\n{done.stdout[-6000:]}")
        return done

    @property
    def outer_env(self) -> dict[str, str]:
        places = {"MOE_REHEARSAL_DIR": str(self.root), "MOE_SERVING_STACKS": str(self.stacks)}
        return {**os.environ, **places}

    @property
    def tool_env(self) -> dict[str, str]:
        """What `make -s env` gives to any tool of the user's."""
        if not self.env:
            lines = self.run("env").stdout.splitlines()
            shell = "\n".join([*lines, "exec env -0"])
            raw = subprocess.run(
                ["bash", "-c", shell], env=self.outer_env, check=True, capture_output=True
            )
            self.env.update(
                entry.split("=", 1) for entry in raw.stdout.decode().split("\0") if "=" in entry
            )
        return self.env

    def pulumi(self, *arguments: str) -> str:
        return subprocess.run(
            ["pulumi", *arguments],
            cwd=CHECKOUT,
            env=self.tool_env,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def outputs(self) -> dict[str, Any]:
        return json.loads(
            self.pulumi("stack", "output", "--json", "--show-secrets", "--stack", "rehearsal")
        )

    @functools.cached_property
    def _first_outputs(self) -> dict[str, Any]:
        """Asked for once: a request must cost no run of the engine."""
        return self.outputs()

    def client(self, service: str) -> Any:
        """The administrator's; made once, for whoever waits asks it several times a second."""
        if service not in self.clients:
            keys = self.tool_env
            self.clients[service] = boto3.client(
                service,
                endpoint_url=keys["AWS_ENDPOINT_URL"],
                region_name=keys["AWS_REGION"],
                aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            )
        return self.clients[service]

    @functools.cached_property
    def bucket(self) -> str:
        return f"moe-serving-rehearsal-{self.client('sts').get_caller_identity()['Account']}"

    def status(self, node: str) -> Status:
        body = self.client("s3").get_object(Bucket=self.bucket, Key=status_key(node))["Body"].read()
        return jsondata.from_json(Status, body)

    def group(self) -> GroupReport:
        report = self.status(PRIMARY).group
        assert report is not None
        return report

    def record(self) -> dict[str, Any]:
        return json.loads(
            self.client("s3").get_object(Bucket=self.bucket, Key="record.json")["Body"].read()
        )

    def instances(self) -> dict[str, str]:
        """Node name -> id of its living instance."""
        filters = [
            {"Name": "tag-key", "Values": [NODE_TAG]},
            {"Name": "instance-state-name", "Values": ["pending", "running", "stopped"]},
        ]
        pages = self.client("ec2").describe_instances(Filters=filters)["Reservations"]
        return {
            tag["Value"]: instance["InstanceId"]
            for page in pages
            for instance in page["Instances"]
            for tag in instance["Tags"]
            if tag["Key"] == NODE_TAG
        }

    def inside(self, node: str, *command: str, check: bool = True) -> str:
        """What a command says in a node, both streams; as `rehearsal exec` runs it."""
        argv = inside.command(Home(self.root), self.instances()[node], command)
        done = subprocess.run(
            argv,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=1200,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{node}: {command} ended with {done.returncode}:\n{done.stdout[-3000:]}")
        return done.stdout

    def in_node(self, node: str, action: Callable[[], T]) -> T:
        """Do something in the network of a node; sockets that it makes stay there."""
        pid = inside.init_pid(Home(self.root), self.instances()[node])
        return netns.inside(f"/proc/{pid}/ns/net", action)

    def connect_from(self, node: str, host: str, port: int) -> http.client.HTTPConnection:
        """A connection as a node makes it: security groups let through what they let it."""
        connection = http.client.HTTPConnection(host, port, timeout=30)
        self.in_node(node, connection.connect)
        return connection

    def complete(
        self, prompt: str, *, rank: int | None = None, timeout: float = 20, **more: Any
    ) -> Answer:
        outputs = self._first_outputs
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {outputs['api_key']}",
        }
        if rank is not None:
            headers["X-data-parallel-rank"] = str(rank)
        body = {"model": MODEL, "prompt": prompt, "max_tokens": 16, "temperature": 0, **more}
        request = urllib.request.Request(
            outputs["endpoint"] + "/completions", json.dumps(body).encode(), headers
        )
        started = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return Answer(answer.status, json.load(answer), time.monotonic() - started)
        except urllib.error.HTTPError as error:
            return Answer(error.code, {"error": error.read().decode()}, time.monotonic() - started)
        except (OSError, ValueError) as error:
            return Answer(0, {"error": str(error)}, time.monotonic() - started)

    def wait(self, what: str, holds: Callable[[], bool], seconds: float) -> float:
        """Wait until it holds; return how long that took."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            with contextlib.suppress(Exception):
                if holds():
                    return time.monotonic() - started
            time.sleep(0.5)
        report = "\n".join(str(self.status(node)) for node in self.instances())
        pytest.fail(f"after {seconds:.0f} s still not: {what}\n{report}")

    def every_rank_answers(self) -> bool:
        return all(self.complete("The experts", rank=r, timeout=5).code == 200 for r in (0, 1))

    def wait_until_ready(self, seconds: float = 300) -> float:
        return self.wait(
            "ready, every rank answering",
            lambda: self.group().phase == "ready" and self.every_rank_answers(),
            seconds,
        )


@dataclass
class Load:
    """Requests on both ranks, four a second, until it is ended; every answer is kept."""

    stack: Rehearsed
    expected: dict[str, str]
    answers: list[tuple[float, str, Answer]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def send(self, rank: int) -> None:
        turn = 0
        while not self.stop.wait(0.5):
            prompt = PROMPTS[turn % len(PROMPTS)]
            turn += 1
            self.answers.append(
                (time.time(), prompt, self.stack.complete(prompt, rank=rank, timeout=8))
            )

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        senders = [threading.Thread(target=self.send, args=(rank,)) for rank in (0, 1)]
        for sender in senders:
            sender.start()
        try:
            yield self
        finally:
            self.stop.set()
            for sender in senders:
                sender.join()

    def wrong(self) -> list[tuple[str, str]]:
        """Answers that claim success with another text than the reference's."""
        return [
            (prompt, answer.text)
            for _, prompt, answer in self.answers
            if answer.code == 200 and answer.text != self.expected[prompt]
        ]


def own_network(place: int) -> str:
    """Return the network of one use in these tests: this machine has one route to each.

    Tests that run side by side have ranges of their own, 16 networks each: the workers of one run,
    and two checkouts by MOE_E2E_FIRST_NETWORK, the second number of the first address.
    """
    first = int(os.environ.get("MOE_E2E_FIRST_NETWORK", "42"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return f"10.{first + 16 * worker + place}.0.0/16"


NETWORK = own_network(0)
OTHER_NETWORK = own_network(1)
"""For networks beside the session's own."""


def write_stack(
    folder: Path,
    *,
    network: str = NETWORK,
    checks: dict[str, Any] | None = None,
    gateway: dict[str, Any] | None = None,
    keys: list[dict[str, Any]] | None = None,
    **changes: Any,
) -> Path:
    """Write the rehearsal's stack file with the group's settings changed; return its folder.

    checks, gateway: those sections, where they are not the file's own. keys: of the endpoint.

    The other examples lie beside it as they are: pages plan them too.
    """
    data = yaml.safe_load((CHECKOUT / "Pulumi.rehearsal.yaml").read_text())
    data["config"]["moe-serving:network"]["cidr"] = network
    data["config"]["moe-serving:groups"]["serve"].update(changes)
    for section, settings in (("checks", checks), ("gateway", gateway)):
        if settings is not None:
            data["config"].setdefault(f"moe-serving:{section}", {}).update(settings)
    if keys is not None:
        data["config"]["moe-serving:endpoint"]["keys"] = keys
    folder.mkdir(parents=True, exist_ok=True)
    for example in CHECKOUT.glob("Pulumi.*.yaml"):
        shutil.copy(example, folder)
    (folder / "Pulumi.rehearsal.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return folder


R = TypeVar("R", bound=Rehearsed)


@contextlib.contextmanager
def running(stack: R) -> Iterator[R]:
    """The stack, up and answering; `down` afterwards whatever happens, with its own proof."""
    try:
        stack.run("up", timeout=1200)
        yield stack
    finally:
        stack.run("down")
