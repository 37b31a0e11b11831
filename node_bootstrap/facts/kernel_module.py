"""`modinfo`: a kernel module as it is installed for the running kernel."""

from __future__ import annotations

from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("modinfo", "efa")


def command(module: str) -> tuple[str, ...]:
    """The same of any module."""
    return (COMMAND[0], module)


@dataclass(frozen=True)
class Module:
    """version: empty for a module of the kernel itself, which states none. path: `(builtin)` too.

    kernel: the kernel that it was built for.
    """

    path: str
    version: str
    kernel: str


def parse(output: str) -> Module | Unknown:
    """The fields of modinfo; `Module … not found` is unknown with those words."""
    values: dict[str, str] = {}
    for line in output.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            values.setdefault(name.strip(), value.strip())
    if "filename" not in values:
        return Unknown(f"no such module: {first_line(output)}")
    kernel = values.get("vermagic", "").split(" ")[0]
    return Module(values["filename"], values.get("version", ""), kernel)
