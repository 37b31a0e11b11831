"""What a bench asks for, and the command of each of its runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PERCENTILES = (50, 95, 99)
METRICS = ("ttft", "itl", "e2el")
"""Time to the first token, between two tokens, to the last one; vLLM's names."""
MODULE = "vllm.entrypoints.cli.main"


@dataclass(frozen=True)
class Load:
    """What each run sends.

    rates: requests per second, one after another; they arrive at random moments (Poisson).
    seeds: of prompts and moments; every rate is run once with each.
    seconds: how long a run sends. input_tokens, output_tokens: of each request.
    """

    rates: tuple[float, ...] = (1.0, 2.0, 4.0)
    seeds: tuple[int, ...] = (1, 2, 3)
    seconds: float = 20.0
    input_tokens: int = 128
    output_tokens: int = 32

    def requests(self, rate: float) -> int:
        """How many requests a run of this rate sends."""
        return max(1, round(rate * self.seconds))


@dataclass(frozen=True)
class Target:
    """What is asked. base_url: without `/v1`. tokenizer: a folder or a Hugging Face id."""

    base_url: str
    model: str
    tokenizer: str


def argv(target: Target, load: Load, rate: float, seed: int, result: Path) -> list[str]:
    """What `python` of an environment with vLLM is told for one run; the API key isn't in here.

    Args:
        target: what is asked.
        load: what is sent.
        rate: requests per second.
        seed: of this run.
        result: file that vLLM writes its result to.
    """
    return [
        *("-m", MODULE, "bench", "serve", "--backend", "openai"),
        *("--base-url", target.base_url, "--endpoint", "/v1/completions"),
        *("--model", target.model, "--tokenizer", target.tokenizer),
        *("--dataset-name", "random", "--ignore-eos", "--temperature", "0"),
        *("--random-input-len", str(load.input_tokens)),
        *("--random-output-len", str(load.output_tokens)),
        *("--num-prompts", str(load.requests(rate)), "--request-rate", f"{rate:g}"),
        *("--seed", str(seed), "--num-warmups", "2", "--disable-tqdm"),
        *("--percentile-metrics", ",".join(METRICS)),
        *("--metric-percentiles", ",".join(map(str, PERCENTILES))),
        *("--save-result", "--result-dir", str(result.parent)),
        *("--result-filename", result.name),
    ]


def environment(key: str, ca_file: str | None) -> dict[str, str]:
    """What a run needs in its environment.

    Args:
        key: of the endpoint.
        ca_file: certificates that vouch for it, where the system's own don't.
    """
    made = {"OPENAI_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return made | ({"SSL_CERT_FILE": ca_file} if ca_file else {})
