"""Run with the Python of a vLLM runtime: how vLLM itself understands a command's parallelism.

Reads a JSON list of argument lists (what comes after `vllm serve`) from standard input, writes a
JSON list of what its configuration says: ranks, where they stand, load balancing, nodes.
"""

from __future__ import annotations

import json
import sys

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser


def understood(words: list[str]) -> dict[str, object]:
    parser = FlexibleArgumentParser()
    command = ServeSubcommand()
    command.subparser_init(parser.add_subparsers(dest="subparser"))
    args = parser.parse_args(["serve", *words])
    command.validate(args)
    args.model = args.model_tag
    engine = AsyncEngineArgs.from_cli_args(args)
    parallel = engine.create_engine_config(
        usage_context=UsageContext.OPENAI_API_SERVER, headless=args.headless
    ).parallel_config
    return {
        "tensor_parallel_size": parallel.tensor_parallel_size,
        "data_parallel_size": parallel.data_parallel_size,
        "data_parallel_size_local": parallel.data_parallel_size_local,
        "first_rank": parallel.data_parallel_rank,
        "hybrid": parallel.data_parallel_hybrid_lb,
        "external": parallel.data_parallel_external_lb,
        "nodes_of_a_rank": parallel.nnodes,
        "enable_expert_parallel": parallel.enable_expert_parallel,
    }


answers = [understood(words) for words in json.load(sys.stdin)]
print("\n" + json.dumps(answers))
