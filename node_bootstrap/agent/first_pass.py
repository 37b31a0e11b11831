"""The boot as it was: the first pass of a boot that got to the role, kept for the timeline.

Later passes, of a restarted agent or a new revision, skip most steps and tell nothing of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from node_bootstrap import durable
from node_bootstrap.status import BootReport

if TYPE_CHECKING:
    from pathlib import Path

    from node_bootstrap.agent.preparer import Progress


class FirstPass:
    """Remembers it over restarts of the agent."""

    def __init__(self, path: Path, boot_id: str, agent_started_at: float) -> None:
        """Take up what an agent of the same boot kept in the file `path`."""
        self._path = path
        self._boot_id = boot_id
        self._agent_started_at = agent_started_at
        saved = durable.load(path, BootReport)
        self.kept = saved if saved is not None and saved.boot_id == boot_id else None

    def look(self, progress: Progress) -> None:
        """Keep the pass, if it is the first that is done."""
        # While the last step, `role`, is under way, the phase is named after it already.
        if self.kept is None and progress.phase == "role" and progress.prepared is not None:
            # Without details: the status holds those of the last pass, and is written often.
            steps = tuple(replace(step, detail="") for step in progress.steps)
            self.kept = BootReport(self._boot_id, self._agent_started_at, steps)
            durable.save(self._path, self.kept)
