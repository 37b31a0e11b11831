"""Find the Pulumi CLI on PATH, or build it from its Go modules with our language host beside it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rehearsal.cache import artifact, key_of
from rehearsal.paths import cache_root

GO_FOLDER = Path(__file__).parent / "go"
LAUNCHER = Path(__file__).parent / "pulumi-language-python.sh"
CLI_MODULE = "github.com/pulumi/pulumi/pkg/v3"
SDK_MODULE = "github.com/pulumi/pulumi/sdk/v3"
VERSION_VARIABLE = f"{SDK_MODULE}/go/common/version.Version"
RECIPE = "1"
"""Raise it when `_build` makes something else of the same inputs."""
OLDEST_VERSION = (3, 200, 0)
"""The first CLI that runs resource hooks: the program waits in one for its endpoint."""


class EngineError(Exception):
    """The Pulumi CLI can be neither found nor built; the message says what to install."""


@dataclass(frozen=True)
class Engine:
    """A Pulumi CLI that can run Python programs.

    Attributes:
        pulumi: the program's path.
        version: as `pulumi version` prints it, without the leading v.
        built: made here (our language host stands beside it), not found on PATH.
    """

    pulumi: Path
    version: str
    built: bool


def ensure() -> Engine:
    """Return the CLI of this machine, building it where PATH has none (minutes, once).

    Raises:
        EngineError: Go is missing or too old, or the build failed.
    """
    return find() or build()


def find(path: str | None = None) -> Engine | None:
    """Look for a usable `pulumi` on PATH: new enough, and with a Python language host.

    Programs in our own cache don't count: `eval "$(make -s env)"` puts them on PATH, and one
    built from another checkout's pins must not be taken for the user's own.

    Args:
        path: folders to search, joined as in PATH; None means PATH itself.
    """
    for folder in (path if path is not None else os.environ.get("PATH", "")).split(os.pathsep):
        candidate = shutil.which("pulumi", path=folder) if folder else None
        if candidate is None:
            continue
        program = Path(candidate).resolve()
        if program.is_relative_to(cache_root().resolve()) or not _has_language_host(program, path):
            continue
        version = _version_of(program)
        if version is not None and _numbers(version) >= OLDEST_VERSION:
            return Engine(Path(candidate).absolute(), version, built=False)
    return None


def build() -> Engine:
    """Build the CLI that go.mod pins, or return the one built before.

    Raises:
        EngineError: Go is missing or too old, or the build failed.
    """
    folder = artifact("engine", _inputs(), _build, usual_seconds=180)
    return _built(folder)


def present() -> Engine | None:
    """Return the CLI of this machine if it is there, building nothing."""
    folder = cache_root() / f"engine-{key_of(_inputs())}"
    return find() or (_built(folder) if (folder / ".complete").exists() else None)


def _inputs() -> dict[str, str]:
    return {
        "go.mod": (GO_FOLDER / "go.mod").read_text(),
        "go.sum": (GO_FOLDER / "go.sum").read_text(),
        "launcher": LAUNCHER.read_text(),
        "recipe": RECIPE,
    }


def _built(folder: Path) -> Engine:
    version = _pinned(CLI_MODULE, (GO_FOLDER / "go.mod").read_text())
    return Engine(folder / "pulumi", version, built=True)


def _build(folder: Path) -> None:
    """Make pulumi, the executor from the SDK's module, and our launcher: all in one folder."""
    module_file = (GO_FOLDER / "go.mod").read_text()
    _require_go(module_file)
    version = _pinned(CLI_MODULE, module_file)
    flags = f"-s -w -X {VERSION_VARIABLE}=v{version}"
    command = ["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", flags]
    _go([*command, "-o", str(folder / "pulumi"), f"{CLI_MODULE}/cmd/pulumi"])
    modules = Path(_go(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", SDK_MODULE]).strip())
    executor = folder / "pulumi-language-python-exec"
    shutil.copyfile(modules / "python" / "cmd" / executor.name, executor)
    launcher = folder / "pulumi-language-python"
    shutil.copyfile(LAUNCHER, launcher)
    launcher.chmod(0o755)


def _require_go(module_file: str) -> None:
    needed = re.search(r"^go (\S+)$", module_file, re.MULTILINE)
    wanted = f"Go {needed[1]} or newer" if needed else "Go"
    advice = (
        f"Install {wanted} from https://go.dev/dl/ and put its bin folder on PATH, or install "
        f"Pulumi {'.'.join(map(str, OLDEST_VERSION))} or newer, which is then used as it is."
    )
    if shutil.which("go") is None:
        raise EngineError(f"There is no `pulumi` on PATH, and no `go` to build it with. {advice}")
    # Go itself compares its version with go.mod's (and may fetch a newer toolchain of its own).
    asked = subprocess.run(
        ["go", "list", "-m"],
        cwd=GO_FOLDER,
        env=_go_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        raise EngineError(
            f"There is no `pulumi` on PATH, and `go` can't build it: {asked.stderr.strip()}. "
            f"{advice}"
        )


def _go(arguments: Sequence[str]) -> str:
    done = subprocess.run(
        ["go", *arguments],
        cwd=GO_FOLDER,
        env=_go_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise EngineError(
            f"`go {arguments[0]}` of the Pulumi CLI failed (exit status {done.returncode}).\n"
            f"{_tail(done.stderr)}\n"
            "It needs the Go module proxy (go env GOPROXY) and 3 GB of disk; "
            "run the same command again once that is mended: what was fetched is kept."
        )
    return done.stdout


def _go_environment() -> Mapping[str, str]:
    # A go.work of a folder above would replace the module that is meant here.
    return {**os.environ, "GOWORK": "off"}


def _pinned(module: str, module_file: str) -> str:
    found = re.search(rf"^\s*(?:require )?{re.escape(module)} v(\S+)", module_file, re.MULTILINE)
    if found is None:
        raise EngineError(f"{GO_FOLDER / 'go.mod'} doesn't require {module}: restore the file.")
    return found[1]


def _has_language_host(program: Path, path: str | None) -> bool:
    host = "pulumi-language-python"
    return (program.parent / host).exists() or shutil.which(host, path=path) is not None


def _version_of(program: Path) -> str | None:
    try:
        done = subprocess.run(
            [program, "version"],
            env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().lstrip("v") or None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("-", maxsplit=1)[0])[:3])


def _tail(text: str, lines: int = 20) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
