"""vLLM in a container: its image on the node, and the command line that runs a role in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from node_bootstrap.assignment import Assignment, Software
from node_bootstrap.facts import docker_image
from node_bootstrap.facts.base import Unknown
from node_bootstrap.facts.read import Run, read
from node_bootstrap.facts.read import run as run_fact
from node_bootstrap.places import Places
from node_bootstrap.status import NodePhase
from node_bootstrap.steps import installers
from node_bootstrap.steps.base import Check, Frequency
from node_bootstrap.steps.installer import install

NAME = "moe-role"
DOCKER = docker_image.COMMAND[0]


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
        found = read(docker_image.command(image), docker_image.parse, self.run)
        if isinstance(found, Unknown):
            return Check(done=False, detail=f"{image}: {found.unknown}")
        return Check(done=True, detail=f"{image} is {found.digest}")

    def apply(self, deadline: float) -> None:
        """Pull or build it."""
        work = self.places.state / "build"
        install(installers.image(self.wanted, work), self.places.installers, deadline)


def python(
    software: Software, program: str, arguments: Sequence[str], env: Mapping[str, str]
) -> tuple[str, ...]:
    """The command that runs a short Python program where vLLM will run, without its devices.

    env: seen in the command line, so nothing secret.
    """
    words = ("-c", program, *arguments)
    pairs = [f"{name}={value}" for name, value in sorted(env.items())]
    if software.runtime == "venv":
        return (*(("env", *pairs) if pairs else ()), software.python, *words)
    return (
        *(DOCKER, "run", "--rm", "--network", "none", "--gpus", "all"),
        *(word for pair in pairs for word in ("--env", pair)),
        *("--entrypoint", "python3", software.image or "", *words),
    )


def docker_run(  # noqa: PLR0913 - named, and each a part of the command
    assignment: Assignment,
    places: Places,
    names: Sequence[str],
    dev: Path = Path("/dev"),
    *,
    name: str = NAME,
    folders: Sequence[str] = (),
) -> tuple[str, ...]:
    """The command that runs the role in its container, in the foreground.

    names: environment variables that go in; their values stay out of the command line, since
        docker takes those of its own environment, which systemd fills from the file.
    dev: folder of the devices that this node has.
    name: of the container. folders: that it sees beside the role's, as docker spells them.
    """
    devices = [p for p in (dev / "gdrdrv",) if p.exists()]
    devices += sorted((dev / "infiniband").glob("uverbs*"))
    weights = assignment.weights.destination
    seen = [f"{weights}:{weights}:ro"] if assignment.weights.fetch != "nothing" else []
    seen += [f"{places.cache}:{places.cache}", *folders]
    command, *arguments = assignment.argv
    return (
        *(DOCKER, "run", "--rm", "--name", name, "--network", "host", "--ipc", "host"),
        *("--gpus", "all", "--ulimit", "memlock=-1:-1", "--ulimit", "nofile=1048576:1048576"),
        *("--ulimit", "core=0", "--security-opt", "no-new-privileges", "--log-driver", "none"),
        *(part for device in devices for part in ("--device", f"/dev/{device.relative_to(dev)}")),
        *(part for folder in seen for part in ("--volume", folder)),
        *(part for variable in sorted(names) for part in ("--env", variable)),
        *("--stop-timeout", f"{assignment.limits.stop_seconds:.0f}"),
        *("--entrypoint", command, assignment.software.image or ""),
        *arguments,
    )
