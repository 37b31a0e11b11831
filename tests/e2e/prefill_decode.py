"""The stack rehearsal-pd driven as a user drives it, and its groups asked one by one.

Its groups' APIs answer the gateway alone, so what asks them past it does so from the gateway's
network.
"""

from __future__ import annotations

import functools
import http.client
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rehearsed import CHECKOUT, MODEL, Answer, Rehearsed, own_network

from node_bootstrap.gateway.counters import Counters, parse
from node_bootstrap.gateway.pair_probe import PairReport, Question, Side, probe_pair
from node_bootstrap.status import GatewayReport, GroupReport

STACK = "rehearsal-pd"
NETWORK = own_network(12)
PREFILL, DECODE = ("prefill-0-0", "prefill-0-1"), ("decode-0-0", "decode-0-1")
NODES = (*PREFILL, *DECODE)
PORT, SIDE_CHANNELS = 8000, (5600, 5601)
CONTEXT = 512
TOOLS = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
"""What vLLM asks for before it takes the field `tools`."""
HAND_OVER = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}


def write_pd_stack(
    folder: Path,
    network: str = NETWORK,
    *,
    gateway: dict[str, Any] | None = None,
    checks: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write the stack file with settings of both groups changed; return its folder.

    gateway, checks: further settings of those sections.

    The other examples lie beside it as they are.
    """
    data = yaml.safe_load((CHECKOUT / f"Pulumi.{STACK}.yaml").read_text())
    data["config"]["moe-serving:network"]["cidr"] = network
    # While a group starts anew on a busy machine, requests are to wait, not to be refused.
    data["config"]["moe-serving:gateway"] |= {
        "wait": "180s",
        "waiting_requests": 1000,
        **(gateway or {}),
    }
    if checks is not None:
        data["config"]["moe-serving:checks"] |= checks
    for group in data["config"]["moe-serving:groups"].values():
        group.update(changes)
    folder.mkdir(parents=True, exist_ok=True)
    for example in CHECKOUT.glob("Pulumi.*.yaml"):
        shutil.copy(example, folder)
    (folder / f"Pulumi.{STACK}.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return folder


def name_of(instance: dict[str, Any]) -> str:
    return next((t["Value"] for t in instance["Tags"] if t["Key"] == "Name"), "")


@dataclass
class PrefillDecode(Rehearsed):
    """The stack, its addresses, and what goes past its gateway."""

    def command(self, verb: str, *options: str) -> list[str]:
        stack = () if verb == "env" else ("--stack", STACK)
        return super().command(verb, *stack, *options)

    def outputs(self) -> dict[str, Any]:
        shown = self.pulumi("stack", "output", "--json", "--show-secrets", "--stack", STACK)
        return json.loads(shown)

    @functools.cached_property
    def bucket(self) -> str:
        return f"moe-serving-{STACK}-{self.client('sts').get_caller_identity()['Account']}"

    def living(self) -> Iterator[dict[str, Any]]:
        """Instances of the stack as EC2 describes them."""
        for reservation in self.client("ec2").describe_instances()["Reservations"]:
            for instance in reservation["Instances"]:
                if instance["State"]["Name"] not in ("terminated", "shutting-down"):
                    yield instance

    def addresses(self) -> dict[str, str]:
        """Node -> private address."""
        return {name_of(i): i["PrivateIpAddress"] for i in self.living()}

    def report(self, primary: str) -> GroupReport:
        """A group as its primary last reported it."""
        report = self.status(primary).group
        assert report is not None
        return report

    def gateway(self) -> GatewayReport:
        """The gateway as it last reported itself."""
        report = self.status("gateway").gateway
        assert report is not None
        return report

    def in_full(self, past: Mapping[str, int] | None = None) -> bool:
        """Whether a completion comes through the gateway, with every group in it.

        past: group -> a generation; it must be there in a later one.
        """
        gateway = self.status("gateway").gateway
        if gateway is None or not gateway.serving:
            return False
        lives = {g.name: g.generation for g in gateway.groups if g.routed and not g.why}
        later = all(lives.get(group, 0) > life for group, life in (past or {}).items())
        return later and len(lives) == len(gateway.groups)

    def restart(self, node: str, cause: str) -> None:
        """Have the group of a node start anew, and wait until it has."""
        primary = node.rpartition("-")[0] + "-0"
        before = self.report(primary).generation
        self.inside(node, "python3", "/opt/moe/current/moe-node.pyz", "restart", cause)
        self.wait("the next life", lambda: self.report(primary).generation > before, 60)
        self.wait("ready again", lambda: self.report(primary).phase == "ready", 300)

    def host(self, node: str) -> str:
        known = self.__dict__.setdefault("_addresses", {})
        if node not in known:
            known.update(self.addresses())
        return known[node]

    def parameter(self, name: str) -> str:
        """A secret of the stack."""
        known = self.__dict__.setdefault("_parameters", {})
        if name not in known:
            found = self.client("ssm").get_parameter(
                Name=f"/moe-serving/{STACK}/{name}", WithDecryption=True
            )
            known[name] = found["Parameter"]["Value"]
        return known[name]

    def side(self, primary: str) -> Side:
        group = primary.rpartition("-")[0]
        return Side(group, self.host(primary), PORT, 2, self.parameter("api-key"))

    def probe(self) -> PairReport:
        prefill, decode = self.side(PREFILL[0]), self.side(DECODE[0])
        return self.in_node("gateway", lambda: probe_pair(prefill, decode, Question(MODEL)))

    def connect(self, host: str, port: int = PORT) -> http.client.HTTPConnection:
        """A connection as the gateway makes it."""
        return self.connect_from("gateway", host, port)

    def counters(self, primary: str) -> Counters:
        return parse(self.metrics(primary))

    def metrics(self, primary: str) -> str:
        return self.get(self.host(primary), PORT, "/metrics")

    def get(self, host: str, port: int, path: str) -> str:
        """What the gateway gets at an address."""
        connection = self.connect(host, port)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def busy(self, primary: str) -> dict[str, float]:
        """Gauges of requests and KV blocks that are not at zero, over all ranks of a group."""
        gauges = ("num_requests_running{", "num_requests_waiting{", "kv_cache_usage_perc{")
        lines = [line for line in self.metrics(primary).splitlines() if line.startswith("vllm:")]
        values = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}
        return {k: v for k, v in values.items() if v and any(g in k for g in gauges)}

    def idle(self) -> bool:
        return not self.busy(PREFILL[0]) and not self.busy(DECODE[0])

    def ask(self, primary: str, body: dict[str, Any], rank: int = 0) -> Answer:
        """One completion of one rank, past the gateway."""
        connection = self.connect(self.host(primary))
        headers = {
            "Content-Type": "application/json",
            "X-data-parallel-rank": str(rank),
            "Authorization": f"Bearer {self.parameter('api-key')}",
        }
        asked = {"model": MODEL, "temperature": 0, "ignore_eos": True, **body}
        try:
            connection.request("POST", "/v1/completions", json.dumps(asked), headers)
            answer = connection.getresponse()
            return Answer(answer.status, json.loads(answer.read()), 0.0)
        finally:
            connection.close()

    def through_both(
        self, prompt: str | list[int], max_tokens: int, ranks: tuple[int, int] = (0, 0)
    ) -> Answer:
        """A completion as the router makes it: prefill first, then decode with what that gave."""
        first = {"prompt": prompt, "max_tokens": 1, "kv_transfer_params": HAND_OVER}
        handed = self.ask(PREFILL[0], first, ranks[0])
        if handed.code != 200:
            return handed
        rest = {"kv_transfer_params": handed.body["kv_transfer_params"], "max_tokens": max_tokens}
        return self.ask(DECODE[0], {"prompt": prompt, **rest}, ranks[1])
