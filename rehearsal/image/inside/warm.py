"""Run by the runtime's Python in its build: leaves .pyc files and vLLM's model-info cache.

vLLM looks at a model's class in a process of its own and keeps what it found under VLLM_CACHE_ROOT.
Importing what a server imports makes the byte code of exactly those modules.
"""

# pyright: reportMissingImports=false
# (its imports are the runtime's, not this environment's)

from __future__ import annotations

import importlib
import sys

ARCHITECTURES = ("Qwen3MoeForCausalLM",)
IMPORTED_BY_A_SERVER = (
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.core",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.coordinator",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.cpu_worker",
    "transformers.models.qwen3_moe.configuration_qwen3_moe",
    "transformers.models.qwen2.tokenization_qwen2",
)


def main() -> None:
    """Import, then inspect; a module that this vLLM lacks is a fault of the list above."""
    for module in IMPORTED_BY_A_SERVER:
        importlib.import_module(module)
    registry = importlib.import_module("vllm.model_executor.models.registry").ModelRegistry
    for architecture in ARCHITECTURES:
        registry.models[architecture].inspect_model_cls()


if __name__ == "__main__":
    sys.exit(main())
