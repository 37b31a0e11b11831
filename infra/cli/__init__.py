"""The command `moe`: plan, status, leftovers."""

from __future__ import annotations

from infra.cli.app import app


def main() -> None:
    """Run the command line."""
    app()
