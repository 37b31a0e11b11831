"""A primary and headless servers on loopback answer as one plain server does."""

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rehearsal.image import model, reference

pytestmark = pytest.mark.e2e

PROMPTS = [
    "The capital of France is",
    "A mixture of experts",
    "Once upon a time there was a river",
    "0 1 2 3 4 5",
    "def add(first, second):",
    "Hello",
]
TOKENS = 24


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    return model.ensure(tmp_path_factory.mktemp("models") / "tiny-qwen3-moe")


@pytest.fixture(scope="module")
def expected(runtime, model_folder) -> list[reference.Completion]:
    return reference.completion(runtime, model_folder, PROMPTS, max_tokens=TOKENS)


@contextlib.contextmanager
def group(runtime: Path, model_folder: Path, ranks: int, start_method: str):
    """Primary with rank 0, and one headless server for each other rank."""
    port, rpc_port = reference.free_port(), reference.free_port()
    common = [str(model_folder), "--max-model-len", "512", "--dtype", "float32"]
    common += ["--data-parallel-size", str(ranks), "--data-parallel-size-local", "1"]
    common += ["--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port", str(rpc_port)]
    common += ["--enable-expert-parallel", "--distributed-executor-backend", "uni"]
    front = ["--host", "127.0.0.1", "--port", str(port), "--api-server-count", "1"]
    env = {"VLLM_WORKER_MULTIPROC_METHOD": start_method}
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(
                reference.serving(
                    runtime, [*common, "--served-model-name", "reference", *front], env
                )
            )
        ]
        for rank in range(1, ranks):
            headless = ["--headless", "--data-parallel-start-rank", str(rank)]
            servers.append(
                stack.enter_context(reference.serving(runtime, [*common, *headless], env))
            )
        servers[0].wait_healthy(port)
        yield port, servers


@pytest.mark.parametrize(("ranks", "start_method"), [(2, "spawn"), (3, "fork")])
def test_expert_parallel_group_equals_one_server(
    runtime, model_folder, expected, ranks, start_method
):
    with group(runtime, model_folder, ranks, start_method) as (port, servers):

        def answers(headers):
            return [
                reference.ask(f"127.0.0.1:{port}", "reference", p, TOKENS, headers=headers)
                for p in PROMPTS
            ]

        for rank in range(ranks):
            got = answers({"X-data-parallel-rank": str(rank)})
            worst = max(e.difference(g) for e, g in zip(expected, got, strict=True))
            assert worst < 1e-4, f"rank {rank}"
        with ThreadPoolExecutor(len(PROMPTS)) as clients:  # batches of several requests per rank
            together = list(
                clients.map(
                    lambda p: reference.ask(f"127.0.0.1:{port}", "reference", p, TOKENS), PROMPTS
                )
            )
        assert max(e.difference(g) for e, g in zip(expected, together, strict=True)) < 1e-4
        for rank, server in enumerate(servers):
            log = server.log.read_text()
            assert f"[EP Rank {rank}/{ranks}] Expert parallelism is enabled" in log
            assert re.search(r"vllm_cpu_ep: this rank computes [234] of 8 experts", log)
            # A spawned engine registers the plugin itself; a forked one has it from its parent.
            assert ("all_gatherv added" in log) == (start_method == "spawn")
