"""Puts the provider where the engine looks for the plugin that the pulumi-aws wheel asks for."""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
from pathlib import Path

from rehearsal.paths import CHECKOUT

SHAPES = "shapes.json"


def wheel_version() -> str:
    """The version that the installed pulumi-aws wheel asks the engine for.

    Raises:
        LookupError: pulumi-aws is not installed.
    """
    spec = importlib.util.find_spec("pulumi_aws")
    if spec is None or spec.origin is None:
        msg = "pulumi-aws is not installed in this Python: run `make venv`"
        raise LookupError(msg)
    manifest = Path(spec.origin).parent / "pulumi-plugin.json"
    return json.loads(manifest.read_text())["version"]


def install(pulumi_home: Path, python: Path) -> Path:
    """Make the plugin's folder and return it; one that is there is brought up to date.

    Args:
        pulumi_home: PULUMI_HOME of the engine that is to use it.
        python: the interpreter that has this package and pulumi-aws.

    Raises:
        LookupError: pulumi-aws is not installed.
        subprocess.CalledProcessError: the interpreter can't read the wheel's classes.
    """
    folder = pulumi_home / "plugins" / f"resource-aws-v{wheel_version()}"
    folder.mkdir(parents=True, exist_ok=True)
    shapes = folder / SHAPES
    write = [str(python), "-m", "rehearsal.provider", "--write-shapes", str(shapes)]
    subprocess.run(write, check=True, cwd=CHECKOUT)
    launcher = folder / "pulumi-resource-aws"
    # exec, so that the engine's signals reach Python; the engine starts it in another folder
    command = [str(python), "-m", "rehearsal.provider", "--shapes", str(shapes)]
    launcher.write_text(
        "#!/bin/sh\n"
        f"PYTHONPATH={shlex.quote(str(CHECKOUT))}${{PYTHONPATH:+:$PYTHONPATH}}; export PYTHONPATH\n"
        f'exec {shlex.join(command)} "$@"\n'
    )
    launcher.chmod(0o755)
    (folder / "PulumiPlugin.yaml").write_text("runtime: python\n")
    return folder
