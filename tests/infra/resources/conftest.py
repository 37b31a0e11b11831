"""The Pulumi program on mocks: what it asks AWS for, without an engine."""

from __future__ import annotations

import asyncio
import json
import runpy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from pulumi.runtime import config as pulumi_config

ROOT = Path(__file__).resolve().parents[3]


NEWEST_IMAGE = "ami-0123456789abcdef0"


def image_of(arguments: Any) -> dict[str, Any]:
    """What EC2 says of an image: Debian's newest, or a larger one of the user's own."""
    asked = [value for entry in arguments.get("filters", ()) for value in entry["values"]]
    device, gib = ("/dev/xvda", 8) if asked == [NEWEST_IMAGE] else ("/dev/sda1", 75)
    return {
        "rootDeviceName": device,
        "blockDeviceMappings": [{"deviceName": device, "ebs": {"volume_size": str(gib)}}],
    }


def offerings_of(arguments: Any) -> dict[str, list[str]]:
    """Every type is offered in two zones, the later one named first."""
    asked = [value for entry in arguments.get("filters", ()) for value in entry["values"]]
    return {
        "instanceTypes": [kind for kind in asked for _ in "ab"],
        "locations": ["us-east-1b", "us-east-1a"] * len(asked),
    }


@dataclass
class Made:
    """One resource as the program registered it."""

    kind: str
    name: str
    inputs: dict[str, Any]
    custom: bool


@dataclass
class Account(pulumi.runtime.Mocks):
    """Answers as AWS would: the outputs that the program reads, and no more."""

    made: list[Made] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def new_resource(self, args: pulumi.runtime.MockResourceArgs):
        self.made.append(Made(args.typ, args.name, dict(args.inputs), bool(args.custom)))
        outputs: dict[str, Any] = {"arn": f"arn:aws:mock:::{args.name}", **args.inputs}
        if args.typ == "aws:ec2/networkInterface:NetworkInterface":
            # By the node's place, `serve-0-1`: the engine makes interfaces in any order. A gateway
            # has no place.
            place = args.name.removesuffix("-address").rpartition("-")[2]
            index = int(place) if place.isdigit() else 100
            outputs["privateIp"] = f"10.42.0.{11 + index}"
        if args.typ == "aws:ec2/placementGroup:PlacementGroup":
            outputs["name"] = f"{args.name}-1234567"
        if args.typ == "aws:lb/loadBalancer:LoadBalancer":
            outputs["dnsName"] = "nlb.example"
        if args.typ == "aws:ec2/launchTemplate:LaunchTemplate":
            outputs["latestVersion"] = 1
        if args.typ == "aws:s3/bucket:Bucket":
            outputs["arn"] = f"arn:aws:s3:::{args.inputs['bucket']}"
        if args.typ == "aws:ssm/parameter:Parameter":
            name, region = args.inputs["name"], pulumi_config.get_config("aws:region")
            outputs["arn"] = f"arn:aws:ssm:{region}:123456789012:parameter{name}"
        return f"{args.name}-id", outputs

    def call(self, args: pulumi.runtime.MockCallArgs):
        self.calls.append(args.token)
        return {
            "aws:index/getCallerIdentity:getCallerIdentity": {"accountId": "123456789012"},
            "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings": offerings_of(args.args),
            "aws:ssm/getParameter:getParameter": {"value": NEWEST_IMAGE},
            "aws:ec2/getAmi:getAmi": image_of(args.args),
            "aws:s3/getObject:getObject": {"body": "-----BEGIN CERTIFICATE-----"},
        }[args.token]

    def of(self, kind: str) -> list[Made]:
        """Resources of a type; its end is enough."""
        return [made for made in self.made if made.kind.endswith(kind)]

    def one(self, kind: str, name: str) -> Made:
        """The one resource of a type and logical name."""
        (found,) = [made for made in self.of(kind) if made.name == name]
        return found


Run = Callable[[dict[str, Any]], tuple[Account, dict[str, Any]]]


@pytest.fixture(scope="session")
def config_in(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], dict[str, Any]]:
    """Makes the config of a stack of two nodes; each call's own, to be changed by a test."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "config.json").write_text(
        json.dumps({"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8})
    )
    (folder / "model.safetensors").write_bytes(b"weights")
    return lambda: {
        "aws:region": "us-east-1",
        "moe-serving:model": {"name": "tiny", "source": str(folder)},
        "moe-serving:groups": {"serve": {"instance_type": "c7i.large", "nodes": 2}},
        "moe-serving:endpoint": {"allowed_cidrs": ["198.18.0.0/15"]},
        # The nodes' image is taken to have their software, as the rehearsal's has.
        "moe-serving:network": {"nat": False},
        "moe-serving:checks": {"suppress": ["NO_WAY_TO_THE_INTERNET"]},
    }


@pytest.fixture
def config(config_in) -> dict[str, Any]:
    return config_in()


@pytest.fixture(scope="session")
def two_nodes(config_in) -> tuple[Account, dict[str, Any]]:
    """What the program makes and exports for two nodes; run once, read by many tests."""
    return run(config_in())


@pytest.fixture
def run_program() -> Run:
    """Run `infra/__main__.py` with a config; answers what it made and what it exported."""
    return run


@pytest.fixture(scope="session")
def run_example(config_in) -> Callable[[str], tuple[Account, dict[str, Any]]]:
    """Run the program with an example's stack file; a small folder stands for a local model."""

    def run_named(stack: str) -> tuple[Account, dict[str, Any]]:
        config = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
        if not config["moe-serving:model"]["source"].startswith("s3://"):
            config["moe-serving:model"]["source"] = config_in()["moe-serving:model"]["source"]
        return run(config, stack)

    return run_named


def run(config: dict[str, Any], stack: str = "unit") -> tuple[Account, dict[str, Any]]:
    account: Account = Account()
    exported: dict[str, Any] = {}
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in config.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PULUMI_CONFIG", json.dumps(texts))
        patch.setattr(pulumi, "export", exported.__setitem__)
        # Nor is there a bucket with the record of an earlier run.
        patch.setattr("infra.resources.deployment.last_failure", lambda *_: None)
        # Mocks have no stack that could wait; they answer at once.
        patch.setattr(pulumi, "run", lambda _: None)
        asyncio.set_event_loop(asyncio.new_event_loop())
        pulumi.runtime.set_mocks(account, project="moe-serving", stack=stack, preview=False)
        pulumi_config.set_all_config(texts)

        @pulumi.runtime.test
        def program():
            runpy.run_path(str(ROOT / "infra" / "__main__.py"), run_name="__main__")
            return pulumi.Output.all(**exported).apply(exported.update)

        program()
    return account, exported
