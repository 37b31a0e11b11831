"""vLLM in a container: its image on the node, and the command line that runs a role in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node_bootstrap import runner
from node_bootstrap.assignment import Assignment, Software
from node_bootstrap.facts.read import Run
from node_bootstrap.facts.read import run as run_fact
from node_bootstrap.places import Places
from node_bootstrap.status import NodePhase
from node_bootstrap.steps import installers
from node_bootstrap.steps.base import Check, Frequency
from node_bootstrap.steps.installer import install

NAME = "moe-role"
DOCKER = "/usr/bin/docker"


@dataclass(frozen=True)
class ImageStep:
    """The image is there, with the digest that its name states, if it states one."""

    wanted: Software
    places: Places
    run: Run = run_fact
    name: str = "software"
    phase: NodePhase = "software"
    frequency: Frequency = "change"
    timeout_seconds: float = 3600
    needs: tuple[str, ...] = ("hardware", "host")

    @property
    def key(self) -> str:
        """The image's name."""
        return self.wanted.image or ""

    def check(self) -> Check:
        """Ask docker for the image, not the registry."""
        image = self.wanted.image or ""
        try:
            output = self.run((DOCKER, "image", "inspect", image))
        except runner.CommandError as error:
            if error.exit_code is None:
                return Check(done=False, detail=f"docker: {error.reason}")
            return Check(done=False, detail=f"{image} is not on the node")
        found = json.loads(output)[0]
        digests = found.get("RepoDigests") or [found["Id"]]
        return Check(done=True, detail=f"{image} is {digests[0]}")

    def apply(self, deadline: float) -> None:
        """Pull or build it."""
        work = self.places.state / "build"
        install(installers.image(self.wanted, work), self.places.installers, deadline)


def docker_run(
    assignment: Assignment, places: Places, names: Sequence[str], dev: Path = Path("/dev")
) -> tuple[str, ...]:
    """The command that runs the role in its container, in the foreground.

    names: environment variables that go in; their values stay out of the command line, since
        docker takes those of its own environment, which systemd fills from the file.
    dev: folder of the devices that this node has.
    """
    devices = [p for p in (dev / "gdrdrv",) if p.exists()]
    devices += sorted((dev / "infiniband").glob("uverbs*"))
    weights = assignment.weights.destination
    folders = [f"{weights}:{weights}:ro"] if assignment.weights.fetch != "nothing" else []
    folders.append(f"{places.cache}:{places.cache}")
    command, *arguments = assignment.argv
    return (
        *(DOCKER, "run", "--rm", "--name", NAME, "--network", "host", "--ipc", "host"),
        *("--gpus", "all", "--ulimit", "memlock=-1:-1", "--ulimit", "nofile=1048576:1048576"),
        *("--ulimit", "core=0", "--security-opt", "no-new-privileges", "--log-driver", "none"),
        *(part for device in devices for part in ("--device", f"/dev/{device.relative_to(dev)}")),
        *(part for folder in folders for part in ("--volume", folder)),
        *(part for name in sorted(names) for part in ("--env", name)),
        *("--stop-timeout", f"{assignment.limits.stop_seconds:.0f}"),
        *("--entrypoint", command, assignment.software.image or ""),
        *arguments,
    )
