"""The order in which the groups of a stack that answers get new nodes; S3 is moto's."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import boto3
import pulumi
import pytest
from moto import mock_aws

from infra import turns, wait
from infra.plan.assignments import Place, assignments
from infra.plan.make import make
from infra.plan.request import EngineOptions, GroupRequest, Request, Vllm
from infra.readiness import Deployment, ExpectedGroup, ExpectedNode
from infra.resources import rolling as module
from infra.resources.record import WAIT_VARIABLE
from infra.resources.rolling import Rolling, RollingArgs
from node_bootstrap.assignment import Archive, status_key
from node_bootstrap.jsondata import to_json
from node_bootstrap.status import Fault, GatewayReport, GroupReport, Restart, RoutedGroup, Status


class NoAccount(pulumi.runtime.Mocks):
    """Nothing is made here."""

    def new_resource(self, args):
        return args.name, {}

    def call(self, args):
        raise AssertionError(f"nothing is looked up: {args.token}")


BUCKET = "moe-serving-dev-123456789012"
DEPLOYED = Deployment(1, "dev", "us-east-1", BUCKET, "https://g/v1", "tiny", "0.32.0", {}, {})
SERVE = {"serve": 3}


@pytest.fixture
def s3(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv(WAIT_VARIABLE, raising=False)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(wait, "FAILURE_HOLDS_SECONDS", 0.05)
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield client


def rolling(groups: dict[str, int]) -> Rolling:
    """Of a stack with so many replicas of each role."""
    asked = tuple(
        GroupRequest(
            name=role,
            role=role,
            instance_type="c7i.large",
            nodes=1,
            replicas=count,
            tensor_parallel_size=1,
            data_parallel_size_local=1,
            enable_expert_parallel=True,
            all2all_backend="auto",
            options=EngineOptions(dtype="float32", max_model_len=512),
        )
        for role, count in groups.items()
    )
    plan = make(
        Request(
            stack="dev",
            model_name="tiny",
            model_files=(),
            model_config={"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8},
            vllm=Vllm("0.32.0"),
            groups=asked,
        )
    )
    return Rolling(RollingArgs(plan, "us-east-1", None, timeout_seconds=0.3))


def deployed(s3, *names: str) -> None:
    """What answered at the last update."""
    groups = {n: ExpectedGroup((f"{n}-0",), "r1", 1, 1) for n in names}
    body = to_json(dataclasses.replace(DEPLOYED, groups=groups)).encode()
    s3.put_object(Bucket=BUCKET, Key="deployment.json", Body=body)


def order(groups: dict[str, int]) -> list[list[str]]:
    return [[group.name for group in part] for part in rolling(groups).order()]


def test_at_a_first_creation_everything_starts_at_once(s3):
    assert order(SERVE) == [["serve-0", "serve-1", "serve-2"]]


def test_groups_of_a_stack_that_answers_follow_each_other(s3):
    deployed(s3, "serve-0", "serve-1", "serve-2")
    assert order(SERVE) == [["serve-0"], ["serve-1"], ["serve-2"]]


def test_new_groups_wait_for_nobody(s3):
    deployed(s3, "serve-0", "serve-1")
    assert order(SERVE) == [["serve-2"], ["serve-0"], ["serve-1"]]


def test_pairs_of_prefill_and_decode_groups_change_over_one_by_one(s3):
    deployed(s3, "prefill-0", "prefill-1", "decode-0", "decode-1")
    changes = order({"prefill": 2, "decode": 2})
    assert changes == [["prefill-0"], ["decode-0"], ["prefill-1"], ["decode-1"]]


def test_one_group_has_nobody_to_wait_for(s3):
    deployed(s3, "serve-0")
    assert order({"serve": 1}) == [["serve-0"]]


def test_where_nothing_boots_nobody_waits(s3, monkeypatch):
    deployed(s3, "serve-0", "serve-1", "serve-2")
    monkeypatch.setenv(WAIT_VARIABLE, "no")
    assert len(order(SERVE)) == 1


def put(s3, node: str, **changes) -> None:
    made = Status(1, node, "i-new", "b", 1.0, "role", archive_sha256="a", revision="r2")
    body = to_json(dataclasses.replace(made, **changes)).encode()
    s3.put_object(Bucket=BUCKET, Key=status_key(node), Body=body)


def routing(*names: str) -> GatewayReport:
    groups = tuple(RoutedGroup(n, "serve", "r1", 1, routed=True) for n in names)
    return GatewayReport(serving=True, since=0.0, why="", groups=groups, units={})


TURN = turns.Turn(
    "serve-1",
    ("serve-0",),
    dataclasses.replace(
        DEPLOYED, nodes={"serve-0-0": ExpectedNode("i-new", "10.0.0.1", "r2", "a")}
    ),
    "gateway",
    "serve-1-0",
)


def test_nodes_are_kept_while_the_group_before_is_not_routed_to(s3):
    put(s3, "serve-0-0")
    put(s3, "gateway", gateway=routing("serve-1"))
    with pytest.raises(wait.NotReadyError, match=r"serve-1 keeps its nodes: .*does not serve"):
        rolling(SERVE).wait(TURN)


def test_the_turn_comes_when_it_is(s3):
    put(s3, "serve-0-0")
    put(s3, "gateway", gateway=routing("serve-0", "serve-1"))
    rolling(SERVE).wait(TURN)


def test_a_failure_before_keeps_the_nodes_and_says_who_goes_on(s3):
    put(s3, "serve-0-0", phase="failed", fault=Fault(1.0, "no room on the disk", 0))
    with pytest.raises(wait.NotReadyError, match=r"(?s)no room on the disk.*serve-1 goes on"):
        rolling(SERVE).wait(TURN)


STARTED = GroupReport("r1", 1, "ready", 0.0, (), restarts=(Restart(1, "r1", "first start", 7.0),))


def test_a_group_is_let_go_of_before_its_nodes_end(s3, monkeypatch):
    put(s3, "serve-1-0", group=STARTED)
    put(s3, "gateway", gateway=routing("serve-0", "serve-1"))
    drained = RoutedGroup("serve-1", "serve", "r1", 1, routed=False, drained=True)
    report = routing("serve-0")
    report = dataclasses.replace(report, groups=(*report.groups, drained))
    looks = []

    def gateway_obeys(_: float) -> None:
        looks.append(json.loads(s3.get_object(Bucket=BUCKET, Key="leaving.json")["Body"].read()))
        put(s3, "gateway", gateway=report)

    monkeypatch.setattr(module.time, "sleep", gateway_obeys)
    rolling(SERVE).let_go(TURN)
    (told,) = looks
    assert told["groups"] == {"serve-1": 7.0}


def test_a_gateway_that_does_not_hear_is_not_waited_for_for_ever(s3, monkeypatch):
    monkeypatch.setattr(module, "HEARD_SECONDS", 0.05)
    put(s3, "serve-1-0", group=STARTED)
    put(s3, "gateway", gateway=routing("serve-0", "serve-1"))
    rolling(SERVE).let_go(TURN)


def test_a_group_that_nobody_is_sent_to_just_ends(s3):
    put(s3, "serve-1-0", group=STARTED)
    put(s3, "gateway", gateway=routing("serve-0"))
    rolling(SERVE).let_go(TURN)
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix="leaving")


def test_the_hook_of_a_group_knows_what_was_made_before_it(s3, run_hook):
    deployed(s3, "serve-0", "serve-1", "serve-2")
    put(s3, "serve-0-0", revision="r1")
    put(s3, "gateway", gateway=routing("serve-0", "serve-1", "serve-2"))
    with pytest.raises(wait.NotReadyError, match=r"serve-0-0: .*not yet at revision"):
        run_hook(rolling(SERVE))


@pytest.fixture
def run_hook():
    """Run the hook of serve-1 as the engine would, after serve-0 got the instance i-new."""

    def run(made: Rolling) -> None:
        async def engine() -> None:
            pulumi.runtime.set_mocks(NoAccount(), project="p", stack="dev", preview=False)
            plan = made.plan
            addresses = {node.name: "10.0.0.1" for node in plan.nodes}
            place = Place("us-east-1", BUCKET, Archive("k", "a"), addresses)
            told = pulumi.Output.from_input(assignments(plan, place))
            ids = {"serve-0-0": pulumi.Output.from_input("i-new")}
            binding = made.hooks(plan.groups[1], told, ids)
            assert binding is not None
            (hook,) = binding.before_update or ()
            await hook.callback(pulumi.ResourceHookArgs("urn", "id", "serve-1-0", "type"))

        asyncio.run(engine())

    return run
