"""Run with the Python of a vLLM runtime: says which command lines its own parser refuses.

Reads a JSON list of argument lists (what comes after `vllm serve`) from standard input, writes a
JSON list with null or the refusal for each.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys

from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser


def refusal(words: list[str]) -> str | None:
    parser = FlexibleArgumentParser()
    command = ServeSubcommand()
    command.subparser_init(parser.add_subparsers(dest="subparser"))
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            args = parser.parse_args(["serve", *words])
            command.validate(args)
    except SystemExit:
        return said.getvalue().strip().splitlines()[-1]
    except (ValueError, TypeError) as error:
        return str(error)
    return None


answers = [refusal(words) for words in json.load(sys.stdin)]
print("\n" + json.dumps(answers))
