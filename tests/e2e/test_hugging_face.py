"""Weights from Hugging Face: one node copies them to S3, vLLM serves them; what goes wrong."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rehearsed import CHECKOUT, PROMPTS, Rehearsed, own_network, write_stack

from rehearsal.hub import repository
from rehearsal.image import model

pytestmark = pytest.mark.nightly
REPOSITORY = "moe-serving/tiny-qwen3-moe"
TOKEN = "hf_rehearsedToken"
LARGE = "model.safetensors"


class Gated(Rehearsed):
    """A stack whose model is on a Hub that wants a token."""

    def hub(self, given: dict[str, Any] | None = None) -> dict[str, Any]:
        url = json.loads((self.root / "account/endpoint.json").read_text())["url"]
        data = None if given is None else json.dumps(given).encode()
        request = urllib.request.Request(
            f"{url}/_rehearsal/hub", data, method="PUT" if data else "GET"
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def set_token(self) -> None:
        # As docs/deploy.md has it: from standard input, so that no list of processes shows it.
        copy = next(self.root.rglob("Pulumi.rehearsal.yaml"))
        command = ["pulumi", "config", "set", "--secret", "moe-serving:huggingface_token"]
        place = ["--stack", "rehearsal", "--config-file", str(copy)]
        subprocess.run(
            [*command, *place], cwd=CHECKOUT, env=self.tool_env, input=TOKEN, text=True, check=True
        )

    def asked(self, path: str) -> list[tuple[str, int]]:
        """Range and status of the requests for a path."""
        return [(a["range"], a["status"]) for a in self.hub()["asked"] if path in a["path"]]


@pytest.fixture(scope="module")
def weights() -> Path:
    return model.ensure(CHECKOUT / "build/models/tiny-qwen3-moe")


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Gated]:
    folder = tmp_path_factory.mktemp("hub")
    gateway = {"enabled": True, "instance_type": "c7i.large"}
    stacks = write_stack(folder / "stacks", network=own_network(13), nodes=1, gateway=gateway)
    file = stacks / "Pulumi.rehearsal.yaml"
    data = yaml.safe_load(file.read_text())
    data["config"]["moe-serving:model"] = {
        "name": REPOSITORY,
        "source": "hf",
        "revision": repository(weights).commit,
        "config": str(weights / "config.json"),
    }
    del data["config"]["moe-serving:network"]["nat"]
    file.write_text(yaml.safe_dump(data))
    stack = Gated(folder / "home", stacks)
    try:
        yield stack
    finally:
        stack.run("down")


def test_a_gated_model_without_a_token_fails_with_what_to_set(gated: Gated, weights: Path) -> None:
    gated.run("preview")
    served = {"repository": REPOSITORY, "folder": str(weights), "token": TOKEN}
    gated.hub({"repositories": [served]})
    failed = gated.run("up", check=False)
    assert failed.returncode
    assert f"Hugging Face does not give {REPOSITORY} (HTTP 401)" in failed.stdout
    assert "set moe-serving:huggingface_token" in failed.stdout


def test_with_it_weights_come_once_through_breaks_and_vllm_answers(
    gated: Gated, weights: Path, reference: dict[str, Any]
) -> None:
    served = {"repository": REPOSITORY, "folder": str(weights), "token": TOKEN}
    faults = [
        {"path": LARGE, "cut_after": 1_000_000},
        {"path": LARGE, "status": 503},
    ]
    gated.hub({"repositories": [served], "faults": faults})
    gated.set_token()
    gated.run("up")
    large = [asked for asked in gated.asked("/cdn/") if asked[1] in (200, 206)]
    assert large == [("", 200), ("bytes=1000000-", 206)]
    prefix = f"models/{REPOSITORY}/{repository(weights).commit}"
    listed = gated.client("s3").list_objects_v2(Bucket=gated.bucket, Prefix=f"{prefix}/")
    assert {o["Key"].removeprefix(f"{prefix}/"): o["Size"] for o in listed["Contents"]} == {
        f.path: f.size_bytes for f in repository(weights).files
    }
    manifest = gated.client("s3").get_object(Bucket=gated.bucket, Key=f"{prefix}.manifest.json")
    assert json.loads(manifest["Body"].read())["revision"] == repository(weights).commit
    argv = "grep -o 'models/[^\" ]*' /etc/systemd/system/moe-role.service"
    assert f"models/{REPOSITORY}" in gated.inside("serve-0-0", "sh", "-c", argv)
    for prompt in PROMPTS[:1]:
        assert completion(gated, prompt) == reference[prompt].text


def test_the_token_is_in_no_state_assignment_status_or_log(gated: Gated) -> None:
    shown = gated.pulumi("stack", "export", "--stack", "rehearsal")
    s3 = gated.client("s3")
    for node in ("gateway", "serve-0-0"):
        for what in ("assignment", "status"):
            key = f"nodes/{node}/{what}.json"
            shown += s3.get_object(Bucket=gated.bucket, Key=key)["Body"].read().decode()
        shown += gated.inside(node, "journalctl")
    assert TOKEN not in shown


def completion(stack: Gated, prompt: str) -> str:
    outputs = stack.outputs()
    body = {"model": REPOSITORY, "prompt": prompt, "max_tokens": 16, "temperature": 0}
    request = urllib.request.Request(
        outputs["endpoint"] + "/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {outputs['api_key']}"},
    )
    trusted = ssl.create_default_context(cadata=outputs["ca_certificate"])
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted))
    opener = urllib.request.build_opener(*handlers)
    with opener.open(request, timeout=30) as answer:
        return json.load(answer)["choices"][0]["text"]
