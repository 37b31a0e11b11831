"""Another NCCL than torch pins, where a backend needs it and no image brings it."""

from __future__ import annotations

from dataclasses import dataclass

from node_bootstrap import runner
from node_bootstrap.assignment import Component
from node_bootstrap.places import Places
from node_bootstrap.status import NodePhase
from node_bootstrap.steps.base import Check, Frequency, StepError
from node_bootstrap.steps.installer import Installer, install
from node_bootstrap.steps.software import installed


@dataclass(frozen=True)
class NcclStep:
    """The distribution of NCCL in the role's environment. script: what installs it."""

    part: Component
    python: str
    cuda_major: int
    script: Installer
    places: Places
    name: str = "nccl"
    phase: NodePhase = "software"
    frequency: Frequency = "change"
    timeout_seconds: float = 900
    needs: tuple[str, ...] = ("software",)

    @property
    def key(self) -> str:
        """Environment and version."""
        return f"{self.python} {self.part.version}"

    def check(self) -> Check:
        """Compare the version by the metadata on disk."""
        name = f"nvidia-nccl-cu{self.cuda_major}"
        try:
            found = installed(self.python).get(name, "")
        except runner.CommandError as error:
            return Check(done=False, detail=f"{self.python} does not run: {error.reason}")
        if found != self.part.version:
            detail = f"{name} is {found or 'missing'}, needed is {self.part.version}"
            return Check(done=False, detail=detail)
        return Check(done=True, detail=f"{name} {found}")

    def apply(self, deadline: float) -> None:
        """Install it over torch's own.

        Raises:
            StepError: the package index has it not, or can't be reached.
        """
        try:
            install(self.script, self.places.installers, deadline)
        except runner.CommandError as error:
            raise StepError(
                f"NCCL {self.part.version} could not be installed: give the node a package index "
                f"that has it, or the container runtime, whose image has it.\n{error}"
            ) from error
