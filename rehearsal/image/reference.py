"""What one plain `vllm serve` process answers: a deployment is compared with it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehearsal.image import vllm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LOOPBACK = "127.0.0.1"
START_LIMIT_SECONDS = 600.0


class ReferenceServerError(RuntimeError):
    """The server didn't start or didn't answer: the message has the end of its log."""


@dataclass(frozen=True)
class Completion:
    """A greedy answer."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]  # natural logarithm, of each chosen token

    def difference(self, other: Completion) -> float:
        """The largest difference of two log-probabilities; infinite where tokens differ."""
        if self.text != other.text or self.token_ids != other.token_ids:
            return float("inf")
        return max(
            (abs(a - b) for a, b in zip(self.logprobs, other.logprobs, strict=True)), default=0.0
        )


def completion(
    runtime: Path,
    model: Path,
    prompts: Sequence[str],
    *,
    max_tokens: int = 24,
    dtype: str = "float32",
) -> list[Completion]:
    """Greedy answers of one engine without any parallelism, one prompt after another.

    Args:
        runtime: what `vllm.ensure` returned.
        model: the model's folder.
        prompts: asked as they are (no chat template).
        max_tokens: tokens of each answer; it goes on over an end-of-text token.
        dtype: of weights and activations; float32 compares best.

    Raises:
        ReferenceServerError: it didn't become healthy in 180 s, or refused a request.
    """
    port = free_port()
    arguments = ["--served-model-name", "reference", "--host", LOOPBACK, "--port", str(port)]
    arguments += ["--max-model-len", "512", "--dtype", dtype]
    with serving(runtime, [str(model), *arguments]) as server:
        server.wait_healthy(port)
        return [ask(f"{LOOPBACK}:{port}", "reference", prompt, max_tokens) for prompt in prompts]


def ask(
    address: str,
    model: str,
    prompt: str,
    max_tokens: int,
    *,
    headers: Mapping[str, str] | None = None,
) -> Completion:
    """One greedy completion over HTTP, with the log-probability of each token.

    Args:
        address: HOST:PORT of the OpenAI-compatible server.
        model: its served model name.
        prompt: asked as it is.
        max_tokens: length of the answer.
        headers: added to the request, such as Authorization or X-data-parallel-rank.

    Raises:
        ReferenceServerError: the answer isn't HTTP 200.
    """
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "logprobs": 1,
    }
    body |= {"ignore_eos": True, "return_token_ids": True}
    status, answer = _request(address, "/v1/completions", body, headers or {})
    if status != 200:
        raise ReferenceServerError(f"HTTP {status} from {address} for {prompt!r}: {answer[:500]}")
    choice: dict[str, Any] = json.loads(answer)["choices"][0]
    return Completion(
        choice["text"], tuple(choice["token_ids"]), tuple(choice["logprobs"]["token_logprobs"])
    )


@dataclass(frozen=True)
class Server:
    """A `vllm serve` process with its session."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait_healthy(self, port: int, limit_seconds: float = START_LIMIT_SECONDS) -> float:
        """Wait for HTTP 200 on /health; returns the seconds waited.

        Raises:
            ReferenceServerError: the process ended, or the time is over.
        """
        began = time.monotonic()
        while (waited := time.monotonic() - began) < limit_seconds:
            if self.process.poll() is not None:
                raise ReferenceServerError(
                    f"vllm serve ended with {self.process.returncode}:\n{self.tail()}"
                )
            with contextlib.suppress(OSError, http.client.HTTPException):
                if _request(f"{LOOPBACK}:{port}", "/health", None, {})[0] == 200:
                    return waited
            time.sleep(0.1)
        raise ReferenceServerError(
            f"vllm serve wasn't healthy after {limit_seconds:.0f} s:\n{self.tail()}"
        )

    def tail(self, lines: int = 40) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def serving(
    runtime: Path, arguments: Sequence[str], env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run `vllm serve` in a session of its own, and end the whole session afterwards.

    Args:
        runtime: what `vllm.ensure` returned.
        arguments: after `serve`; what every start on CPU needs is added.
        env: added to the environment.
    """
    with tempfile.TemporaryDirectory(prefix="vllm-") as scratch:
        folder = Path(scratch)
        shutil.copytree(vllm.model_info_cache(runtime), folder / "cache")
        log = folder / "log"
        argv = [str(vllm.python(runtime)), "-m", "vllm.entrypoints.cli.main", "serve", *arguments]
        argv += ["--enforce-eager", "--kv-cache-memory-bytes", str(64 << 20)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv,
                cwd=folder,
                env={**environment(folder), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Server(process, log)
        finally:
            end_session(process)


def environment(folder: Path) -> dict[str, str]:
    """The environment of a server on CPU.

    Args:
        folder: private to it; holds `cache`, a copy of the runtime's.
    """
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "GLOO_SOCKET_IFNAME": "lo",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        # Without a C++ compiler a request with log-probabilities would end the engine.
        "TORCHDYNAMO_DISABLE": "1",
        "VLLM_CACHE_ROOT": str(folder / "cache"),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "fork",
    }


def end_session(process: subprocess.Popen[bytes], grace_seconds: float = 5.0) -> None:
    """End a session's leader, and what it leaves behind: vLLM's helpers outlive it for a moment."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_seconds)
    for pid in session_members(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def session_members(session: int) -> list[int]:
    """Process ids of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name, which may hold spaces) state ppid pgrp session …
            fields = stat.read_text().rpartition(") ")[2].split()
            if int(fields[3]) == session:
                found.append(int(stat.parent.name))
    return found


def free_port() -> int:
    """A TCP port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def _request(
    address: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            typed = {"Content-Type": "application/json", **headers}
            connection.request("POST", path, json.dumps(body), typed)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()
