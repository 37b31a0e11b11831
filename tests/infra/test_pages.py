"""What pages say that a program can check: the pipeline's example, the figures of the cost page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from infra.cli.app import app
from infra.model import facts
from infra.planning import make_plan
from infra.sources import load, read_file

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / "docs/pipeline/github-actions.yml"
JOBS: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"]
COMMANDS = [
    (job, line.strip())
    for job, content in JOBS.items()
    for step in content["steps"]
    for line in step.get("run", "").splitlines()
]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
COST = re.compile(r"^\| `([\w-]+)` \| [^|]+ \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)


def test_the_pipeline_has_no_stored_keys_and_asks_for_githubs_token() -> None:
    text = WORKFLOW.read_text()
    assert yaml.safe_load(text)["permissions"]["id-token"] == "write"
    assert "secrets." not in text
    assert "AWS_SECRET_ACCESS_KEY" not in text


def test_every_action_of_the_pipeline_is_pinned_to_a_commit() -> None:
    actions = [s["uses"] for job in JOBS.values() for s in job["steps"] if "uses" in s]
    assert actions
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) for action in actions)


def test_the_commands_of_moe_in_the_pipeline_exist_with_their_options() -> None:
    moe = typer.main.get_command(app)
    used = [shlex.split(line) for _, line in COMMANDS if line.startswith(".venv/bin/moe ")]
    assert {words[1] for words in used} == {"plan", "preflight", "preview", "leftovers"}
    for words in used:
        command = moe.get_command(None, words[1])  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]  # a group
        command.make_parser(typer.Context(command)).parse_args(list(words[2:]))


def test_the_make_targets_of_the_pipeline_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {line.split()[1] for _, line in COMMANDS if line.startswith("make ")}
    assert used
    assert used <= targets


def test_every_job_that_changes_something_runs_one_at_a_time() -> None:
    changing = {job for job, line in COMMANDS if re.match(r"pulumi (up|destroy)\b", line)}
    assert changing == {"up", "ephemeral-up", "ephemeral-down"}
    assert all("concurrency" in JOBS[job] for job in changing)


def test_a_job_that_only_reads_asks_what_the_deployer_may_do() -> None:
    asked = [line for job, line in COMMANDS if job == "preview" and "moe preflight" in line]
    assert asked == ['.venv/bin/moe preflight "$STACK" --role "$DEPLOYER"']


@pytest.mark.parametrize("variable", ["STACK", "EPHEMERAL"])
def test_the_model_of_a_jobs_stack_is_in_s3_or_copied_before_the_update(variable: str) -> None:
    stack = yaml.safe_load(WORKFLOW.read_text())["env"][variable]
    source = load(read_file(ROOT / f"Pulumi.{stack}.yaml", ROOT), stack).model.source
    jobs = {"STACK": ("preview", "up"), "EPHEMERAL": ("ephemeral-up",)}[variable]
    for job in jobs:
        lines = [line for name, line in COMMANDS if name == job]
        before = lines[
            : next(i for i, line in enumerate(lines) if re.search(r"moe |pulumi up", line))
        ]
        copied = any(line.startswith("aws s3 sync") and line.endswith(source) for line in before)
        assert source.startswith("s3://") or copied


def test_a_branchs_stack_ends_by_itself() -> None:
    job = [line for name, line in COMMANDS if name == "ephemeral-up"]
    ttl = next(i for i, line in enumerate(job) if "moe-serving:ttl" in line)
    assert ttl < next(i for i, line in enumerate(job) if line.startswith("pulumi up"))


@pytest.mark.parametrize(
    ("stack", "hour", "day"), COST.findall((ROOT / "docs/cost.md").read_text())
)
def test_the_cost_page_has_the_plans_figures(
    stack: str, hour: str, day: str, tmp_path: Path
) -> None:
    source = read_file(ROOT / f"Pulumi.{stack}.yaml", ROOT)
    settings = load(source, stack)
    if not settings.model.source.startswith("s3://"):
        # A model that the rehearsal makes; its cost is its nodes', whatever is in it.
        (tmp_path / "config.json").write_text('{"architectures": ["Any"], "num_experts": 8}')
        local = settings.model.model_copy(update={"source": str(tmp_path)})
        settings = settings.model_copy(update={"model": local})
    cost = make_plan(stack, settings, facts(settings.model, source.base), source.region).cost
    assert cost.usd_per_hour == pytest.approx(float(hour), abs=0.005)
    assert cost.usd_per_hour == pytest.approx(float(day) / 24, abs=0.005)


def test_the_cost_page_has_figures() -> None:
    assert len(COST.findall((ROOT / "docs/cost.md").read_text())) > 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
