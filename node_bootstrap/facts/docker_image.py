"""`docker image inspect`: an image on this node, by its digest."""

from __future__ import annotations

import json
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("/usr/bin/docker", "image", "inspect")


@dataclass(frozen=True)
class DockerImage:
    """digest: of the registry, or of the image itself where it was built here."""

    digest: str


def command(image: str) -> tuple[str, ...]:
    """The command for one image."""
    return (*COMMAND, image)


def parse(output: str) -> DockerImage | Unknown:
    """A list of one image; docker says by an empty list and a sentence that it has none."""
    if "No such image" in output:
        return Unknown("is not on the node")
    try:
        found = json.loads(output)[0]
        return DockerImage((found.get("RepoDigests") or [found["Id"]])[0])
    except (ValueError, LookupError, TypeError, AttributeError):
        return Unknown(f"docker's answer is not understood: {first_line(output)}")
