"""Digests of what a vLLM release takes, of the tables as they were read from its source.

`python release_digests.py RAW.json > data/vllm_releases_digests.json` makes
the committed ones from the raw reading of the 24 source distributions.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any


def digest(value: Any) -> str:
    """SHA-256 of the value's canonical JSON, the first 16 digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def of_release(flags: dict[str, Any], env: list[str], facts: dict[str, Any]) -> dict[str, Any]:
    """Numbers and digests of one release. Fields of a flag that say nothing are left out."""
    said = {
        name: {k: v for k, v in spec.items() if k == "default" or v not in (None, [], False)}
        for name, spec in flags.items()
    }
    return {
        "flags": len(said),
        "flags_digest": digest(said),
        "env": len(env),
        "env_digest": digest(sorted(env)),
        "facts_digest": digest({name: v for name, v in facts.items() if v is not None}),
    }


def main(raw: Path) -> None:
    """Print the digests of a raw reading."""
    releases = json.loads(raw.read_text())["releases"]
    other = {"source", "cli_args_file", "flags", "env", "pplx"}
    found = {
        version: of_release(
            held["flags"], list(held["env"]), {k: v for k, v in held.items() if k not in other}
        )
        for version, held in releases.items()
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
