"""What the tests of steps have in place of a node's tools and marks."""

from __future__ import annotations

from node_bootstrap.runner import CommandError
from node_bootstrap.steps.base import Marks


class Tools:
    """Answers by the beginning of a command; what it has no answer for is not installed."""

    def __init__(self, answers: dict[str, str]):
        self.answers, self.ran = answers, []

    def __call__(self, command):
        line = " ".join(command)
        self.ran.append(line)
        for begin, answer in self.answers.items():
            if line.startswith(begin):
                return answer
        raise CommandError(tuple(command), None, "No such file or directory")


def marks() -> Marks:
    kept: dict[str, str] = {}
    return Marks(lambda name: kept.get(name, ""), kept.__setitem__, "boot-1")
