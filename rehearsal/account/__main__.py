"""`python -m rehearsal.account --home DIR`: the account's process, in the foreground."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rehearsal.account import environment
from rehearsal.machine.index import Index
from rehearsal.machine.interface import MachineError
from rehearsal.paths import Home

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rehearsal.account.metadata import Metadata
    from rehearsal.account.server import Account
    from rehearsal.machine.interface import Machine


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m rehearsal.account", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder of the rehearsal")
    parser.add_argument("--region", default="us-east-1", help="region, at the first start")
    parser.add_argument("--port", type=int, default=0, help="at the first start; 0: any free one")
    parser.add_argument(
        "--image", type=Path, help="root file system of instances; without it none can boot"
    )
    parser.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="SOURCE:TARGET",
        help="a folder of this machine that every instance sees, read-only",
    )
    parser.add_argument(
        "--index", type=Path, help="folder of wheels that instances find at a package index"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the account until it is told to end; returns the exit status."""
    given = arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    environment.prepare()
    # Only now may moto be imported, and with it everything below.
    process = importlib.import_module("rehearsal.account.process")
    home = Home(given.home.resolve())
    binds = [_bind(text) for text in given.bind]

    def machine(account: Account, metadata: Metadata) -> Machine | None:
        if given.image is None:
            return None
        containers = importlib.import_module("rehearsal.machine").Containers
        index = Index(given.index, account.faults.download) if given.index else None
        return containers(
            home,
            given.image,
            binds,
            metadata.tree,
            account.serve_vpc,
            account.machine_changed,
            index,
        )

    try:
        process.serve(home, given.region, machine, given.port)
    except (process.StateError, process.EndpointError, MachineError) as fault:
        print(fault, file=sys.stderr)
        return 1
    return 0


def _bind(text: str) -> tuple[Path, str]:
    source, separator, target = text.partition(":")
    if not (separator and source and target.startswith("/")):
        raise SystemExit(f"--bind {text}: expected SOURCE:TARGET with an absolute TARGET")
    return Path(source), target


if __name__ == "__main__":
    sys.exit(main())
