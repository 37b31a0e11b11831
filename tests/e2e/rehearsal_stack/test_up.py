"""`make up`: from nothing to an endpoint that answers over both nodes."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request

import pytest
from rehearsed import CHECKOUT, HEADLESS, MODEL, NODES, PRIMARY, PROMPTS, Rehearsed, write_stack

pytestmark = pytest.mark.e2e

LOGPROB_TOLERANCE = 1e-4
"""Float32 over two ranks against one: facts of summation order, 5e-7 in practice."""


def test_each_node_holds_its_half_of_the_experts(stack: Rehearsed) -> None:
    experts = {node: stack.status(node).found.experts for node in NODES}
    assert [experts[PRIMARY][0].local, experts[HEADLESS][0].local] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    log = stack.inside(HEADLESS, "journalctl", "-u", "moe-role.service", "--no-pager", "-o", "cat")
    assert "Local/global number of experts: 4/8" in log
    recorded = json.dumps(stack.record())
    assert "[0, 1, 2, 3]" in recorded
    assert "[4, 5, 6, 7]" in recorded


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_answer_equals_that_of_one_plain_engine(
    stack: Rehearsed, reference, prompt: str, rank: int
) -> None:
    answer = stack.complete(prompt, rank=rank, logprobs=1)
    assert answer.code == 200, answer.body
    assert answer.text == reference[prompt].text
    got = answer.body["choices"][0]["logprobs"]["token_logprobs"]
    assert got == pytest.approx(reference[prompt].logprobs, abs=LOGPROB_TOLERANCE)


def test_the_endpoint_wants_the_key(stack: Rehearsed) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(stack.outputs()["endpoint"] + "/models", timeout=5)


def test_a_second_up_changes_nothing(stack: Rehearsed) -> None:
    before = stack.instances()
    shown = stack.run("up").stdout
    assert re.search(r"\d+ unchanged", shown)
    assert not re.search(r"(created|updated|replaced|deleted)", shown.split("Resources:")[-1])
    assert stack.instances() == before


def test_a_changed_flag_restarts_the_group_and_replaces_no_node(stack: Rehearsed, tmp_path) -> None:
    before, group = stack.instances(), stack.group()
    original = stack.stacks
    stack.stacks = write_stack(tmp_path, max_model_len=384)
    try:
        stack.run("up")
        after = stack.group()
        assert stack.instances() == before
        assert after.revision != group.revision
        assert after.generation > group.generation
        shown = subprocess.run(
            [CHECKOUT / ".venv/bin/moe", "status"],
            env=stack.tool_env,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert after.revision[:8] in shown
        assert stack.complete("Once", max_tokens=450).code == 400, "384 tokens are the limit now"
    finally:
        stack.stacks = original
        stack.run("up")


def test_a_changed_instance_type_is_previewed_with_the_nodes_it_replaces(
    stack: Rehearsed, tmp_path
) -> None:
    original = stack.stacks
    stack.stacks = write_stack(tmp_path, instance_type="m7i.large")
    try:
        shown = stack.run("preview").stdout
    finally:
        stack.stacks = original
    for node in NODES:
        assert re.search(rf"\+-?.*aws:ec2:Instance\s+.*{node}.*replace", shown), shown


def test_no_secret_is_shown_in_state_outputs_or_process_lists(stack: Rehearsed) -> None:
    key = stack.outputs()["api_key"]
    assert key not in stack.pulumi("stack", "export", "--stack", "rehearsal")
    assert key not in stack.pulumi("stack", "output", "--json", "--stack", "rehearsal")
    for node in NODES:
        assert key not in stack.inside(node, "ps", "axww", "-o", "args")
        assert key not in stack.inside(node, "journalctl", "--no-pager", "-o", "cat")
    assert key not in json.dumps(stack.record())
    assert MODEL in json.dumps(stack.record())
