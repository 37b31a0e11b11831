"""The end of a node that becomes an image: nothing of its own stays, then it powers off.

A unit of its own does it, since the agent and all that it remembers are part of what goes.
"""

from __future__ import annotations

import logging
from importlib import resources
from typing import TYPE_CHECKING

from node_bootstrap import durable, runner
from node_bootstrap.agent.protocol import RoleView
from node_bootstrap.agent.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from node_bootstrap.assignment import Assignment
    from node_bootstrap.places import Places
    from node_bootstrap.status import Fault

log = logging.getLogger(__name__)

UNIT = "moe-seal"


class Sealing:
    """Stands where a node of a group has its part in it."""

    fault: Fault | None = None

    def __init__(self, places: Places, tell: Callable[[], None]) -> None:
        """tell: writes the status to the bucket now; StoreError when that fails."""
        self.role = RoleView()
        self._places = places
        self._tell = tell
        self._prepared = False
        self._begun = False

    def assign(self, assignment: Assignment) -> None:
        """A new assignment came: its steps are run before anything is taken away."""
        del assignment
        self._prepared = False

    def prepared(self, assignment: Assignment) -> None:
        """The steps are done."""
        del assignment
        self._prepared = True

    def tick(self) -> None:
        """Begin once the steps are done, and that has been said: nobody can say it later."""
        if not self._prepared or self._begun:
            return
        try:
            self._tell()
        except StoreError as error:
            log.warning("this node does not clear itself yet: %s", error)
            return
        script = self._places.root / "run" / f"{UNIT}.sh"  # in memory: it is not in the image
        text = resources.files("node_bootstrap.files").joinpath("seal.sh").read_text()
        durable.write(script, text.encode(), mode=0o700)
        log.info("this node becomes an image: it clears itself and powers off")
        command = ["systemd-run", "--no-block", "--collect", f"--unit={UNIT}"]
        output = ["--property=StandardOutput=journal+console", "--property=StandardError=inherit"]
        runner.run([*command, *output, "/bin/sh", str(script)], timeout_seconds=30)
        self._begun = True

    def close(self) -> None:
        """The unit goes on."""
