# ruff: noqa: INP001 - a program beside its data, in no package
"""Write the locks of vLLM's environment on nodes: `make runtime-locks`.

`runtime/NAME.in` names what to lock; its first line says how: `# cp313 complete` where every
distribution is named, `# cp312 resolve` where dependencies are still to be found. Each becomes
`node_bootstrap/files/locks/NAME-cp313-x86_64.lock`: one wheel and one hash for each distribution,
no registry's address.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from packaging import tags
from packaging.utils import parse_wheel_filename

CHECKOUT = Path(__file__).resolve().parent.parent
SOURCES = CHECKOUT / "requirements" / "runtime"
LOCKS = CHECKOUT / "node_bootstrap" / "files" / "locks"
GLIBC_MINOR = 39
"""Of Ubuntu 24.04; Debian 13 has a newer one."""


def main() -> int:
    """Write all, or those named on the command line."""
    for source in sorted(SOURCES.glob("*.in")):
        if not sys.argv[1:] or source.stem in sys.argv[1:]:
            python, how = source.read_text().splitlines()[0].removeprefix("# ").split()
            resolved = resolve(source, python, complete=how == "complete")
            target = LOCKS / f"{source.stem}-{python}-x86_64.lock"
            target.write_text(lock(resolved["packages"], source.stem, python))
            print(target.relative_to(CHECKOUT))
    return 0


def resolve(source: Path, python: str, *, complete: bool) -> dict[str, Any]:
    """Have uv find versions and files."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "pylock.toml"
        command = [
            *("uv", "pip", "compile", str(source), "--quiet", "--format", "pylock.toml"),
            *("--python-version", f"3.{python[3:]}", "--no-python-downloads"),
            *("--python-platform", f"x86_64-manylinux_2_{GLIBC_MINOR}"),
            *("--only-binary", ":all:", "--output-file", str(output)),
            *(["--no-deps"] if complete else []),
        ]
        subprocess.run(command, check=True, env={**os.environ, "UV_PYTHON_PREFERENCE": "system"})
        return tomllib.loads(output.read_text())


def lock(packages: list[dict[str, Any]], name: str, python: str) -> str:
    """The lock's text: the wheel that an installer would choose of each distribution."""
    ranks = {tag: rank for rank, tag in enumerate(supported(python))}
    chosen = {p["name"]: (p["version"], best(p["wheels"], ranks)) for p in packages}
    megabytes = sum(wheel["size"] for _, wheel in chosen.values()) // 10**6
    lines = [
        f"# {name} for CPython 3.{python[3:]} on x86-64 Linux, glibc 2.{GLIBC_MINOR} or newer.",
        f"# {len(chosen)} wheels, {megabytes} MB. Installed with --no-deps. make runtime-locks",
    ]
    for distribution, (version, wheel) in sorted(chosen.items()):
        lines += [f"{distribution}=={version} \\", f"    --hash=sha256:{wheel['hashes']['sha256']}"]
    return "\n".join(lines) + "\n"


def supported(python: str) -> list[tags.Tag]:
    """Tags of the nodes' interpreter, best first."""
    version = (3, int(python[3:]))
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC_MINOR, 4, -1)]
    older = {17: "manylinux2014_x86_64", 12: "manylinux2010_x86_64", 5: "manylinux1_x86_64"}
    platforms += [*older.values(), "linux_x86_64"]
    return [
        *tags.cpython_tags(version, platforms=platforms),
        *tags.compatible_tags(version, f"cp{python[2:]}", platforms),
    ]


def best(wheels: list[dict[str, Any]], ranks: dict[tags.Tag, int]) -> dict[str, Any]:
    """The wheel whose tag comes first."""

    def rank(wheel: dict[str, Any]) -> int:
        name = wheel.get("name") or wheel["url"].rsplit("/", 1)[-1]
        return min(ranks.get(tag, len(ranks)) for tag in parse_wheel_filename(name)[3])

    found = min(wheels, key=rank)
    if rank(found) == len(ranks):
        raise SystemExit(f"no wheel fits: {[w['url'] for w in wheels]}")
    return found


if __name__ == "__main__":
    sys.exit(main())
