"""What the nodes of every example stack may do, decided as IAM does: see identity.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import buildable, sources
from infra.plan.assignments import s3_location
from rehearsal.account.iam.policies import Caller, Question, decide, parse

ROOT = Path(__file__).resolve().parents[3]
TABLE = tomllib.loads(Path(__file__).with_name("identity.toml").read_text())
ROWS: list[dict[str, Any]] = TABLE["row"]
CASES = [(role, row) for row in ROWS for role in TABLE["roles"]]
ACCOUNT, ARCHIVE = "123456789012", "bootstrap/abc.pyz"
PLAIN_HTTP, TLS = {"aws:securetransport": ["false"]}, {"aws:securetransport": ["true"]}


def examples() -> list[str]:
    """Names of the example stacks that the program builds."""
    names = (path.stem.removeprefix("Pulumi.") for path in ROOT.glob("Pulumi.*.yaml"))
    return [
        name
        for name in sorted(names)
        if not buildable.not_built_yet(
            sources.load(sources.read_file(ROOT / f"Pulumi.{name}.yaml"), name)
        )
    ]


@dataclass
class Policies:
    """A stack's policies as its program made them. nodes: node -> its own."""

    stack: str
    region: str
    model: Mapping[str, str]
    nodes: Mapping[str, list[dict[str, Any]]]
    bucket: list[dict[str, Any]]

    def of(self, role: str) -> str | None:
        """A node of a role; None where the stack has none: only one node."""
        names = [n for n in sorted(self.nodes) if (n.endswith("-0")) == (role == "primary")]
        return names[0] if names else None

    def words(self, node: str) -> dict[str, str]:
        """What stands for the placeholders of the table."""
        other = next((n for n in sorted(self.nodes) if n != node), "serve-7-7")
        bucket = f"moe-serving-{self.stack}-{ACCOUNT}"
        return {
            "me": node,
            "other": other,
            "other_role_arn": f"arn:aws:iam::{ACCOUNT}:role/moe-serving/{self.stack}/{other}",
            "bucket": bucket,
            "stack": self.stack,
            "account": ACCOUNT,
            "region": self.region,
            "archive": ARCHIVE,
            "instance": "i-0123456789abcdef0",
            "foreign_bucket": f"moe-serving-another-{ACCOUNT}",
            "foreign_parameter": "/moe-serving/another/agent-token",
            "model_bucket": self.model.get("bucket", bucket),
            "model_prefix": self.model["prefix"],
        }


@pytest.fixture(scope="module")
def policies_of(run_example: Callable[[str], tuple[Any, dict[str, Any]]]):
    """Every example's policies, each program run once."""
    made: dict[str, Policies] = {}

    def policies(name: str) -> Policies:
        if name not in made:
            made[name] = collect(name, run_example(name)[0])
        return made[name]

    return policies


def collect(name: str, account: Any) -> Policies:
    config = yaml.safe_load((ROOT / f"Pulumi.{name}.yaml").read_text())["config"]
    model = config["moe-serving:model"]
    where = {"prefix": f"models/{model['name']}/"}
    if model["source"].startswith("s3://"):
        location = s3_location(model["source"])
        where = {"bucket": location.bucket, "prefix": location.prefix}
    (bucket,) = account.of("bucketPolicy:BucketPolicy")
    return Policies(
        stack=name,
        region=config["aws:region"],
        model=where,
        nodes={
            made.name: parse(made.inputs["policy"]) for made in account.of("rolePolicy:RolePolicy")
        },
        bucket=parse(bucket.inputs["policy"]),
    )


def ask(policies: Policies, node: str, row: Mapping[str, Any], more: Mapping[str, list[str]]):
    words = policies.words(node)
    context = {key: [value] for key, value in row.get("context", {}).items()}
    question = Question(
        row["action"],
        row["resource"].format_map(words),
        {"aws:requestedregion": [policies.region], **context, **more},
    )
    role = f"arn:aws:iam::{ACCOUNT}:role/moe-serving/{policies.stack}/{node}"
    caller = Caller(f"arn:aws:sts::{ACCOUNT}:assumed-role/{node}/i-1", ACCOUNT, role)
    stacks_own = question.resource.startswith(f"arn:aws:s3:::{words['bucket']}")
    return decide(policies.nodes[node], policies.bucket if stacks_own else [], question, caller)


@pytest.mark.parametrize("stack", examples())
@pytest.mark.parametrize(
    ("role", "row"), CASES, ids=[f"{role}: {row['name']}" for role, row in CASES]
)
def test_a_role_may_what_the_table_allows_and_nothing_else(
    policies_of: Callable[[str], Policies], stack: str, role: str, row: dict[str, Any]
) -> None:
    policies = policies_of(stack)
    node = policies.of(role)
    if node is None:
        assert len(policies.nodes) == 1, "a stack of several nodes has both roles"
        return
    assert ask(policies, node, row, TLS) == (role in row["allowed"])


@pytest.mark.parametrize("stack", examples())
def test_without_tls_the_stacks_bucket_answers_nobody(
    policies_of: Callable[[str], Policies], stack: str
) -> None:
    policies = policies_of(stack)
    own = [
        row
        for row in ROWS
        if row["allowed"] and row["resource"].startswith("arn:aws:s3:::{bucket}")
    ]
    assert own
    for row in own:
        node = policies.of(row["allowed"][0])
        assert node is not None
        assert ask(policies, node, row, TLS)
        assert not ask(policies, node, row, PLAIN_HTTP)


@pytest.mark.parametrize("stack", examples())
def test_only_actions_that_know_no_resources_are_allowed_on_all(
    policies_of: Callable[[str], Policies], stack: str
) -> None:
    for statements in policies_of(stack).nodes.values():
        wide = [s["Sid"] for s in statements if s["Resource"] in ("*", ["*"])]
        assert wide == ["SessionManager"]
