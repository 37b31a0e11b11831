"""NIXL: what Python really imports for it where vLLM will run, before vLLM starts.

Another NIXL in front of the planned one, a package without plugins or a plugin without its
libraries shows only at the first handshake, or not at all: KV then takes another way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from node_bootstrap.assignment import Software
from node_bootstrap.facts.base import Unknown
from node_bootstrap.facts.nixl_import import PROGRAM, NixlImport, parse
from node_bootstrap.facts.read import Run, read
from node_bootstrap.facts.read import run as run_fact
from node_bootstrap.status import NodePhase
from node_bootstrap.steps import container, installers
from node_bootstrap.steps.base import Check, Frequency, StepError, key_of

NAME = "NIXL"
STEERING = ("LD_LIBRARY_PATH", "LD_PRELOAD", "NIXL_PLUGIN_DIR", "PYTHONPATH")
"""Variables of the role that decide which files are loaded."""


def planned(software: Software) -> str:
    """The version of the plan; empty where it names none."""
    part = installers.component(software, NAME)
    return part.version if part is not None else software.distributions.get(NAME.lower(), "")


def faults(backends: tuple[str, ...], software: Software, found: NixlImport | Unknown) -> list[str]:
    """Why KV can't be handed over as planned with what was imported, one sentence each.

    backends: one of them must carry.
    """
    if isinstance(found, Unknown):
        return [found.unknown]
    if not found.version:
        return [f"it can't be imported: {found.error}"]
    wrong, version = [], planned(software)
    if version and found.version != version:
        wrong.append(f"{found.file} is version {found.version}, the plan is {version}")
    home = Path(software.python).parent.parent
    if software.runtime == "venv" and not Path(found.file).is_relative_to(home):
        wrong.append(f"{found.file} is imported in place of what was installed in {home}")
    if found.error:
        wrong.append(f"{found.bindings} can't be used: {found.error}")
    elif not set(backends).intersection(found.loaded):
        wrong += [f"its plugin {name} {_why(name, found)}" for name in backends]
    return wrong


def _why(name: str, found: NixlImport) -> str:
    if name in found.faults:
        return f"can't be loaded: {found.faults[name]}"
    if name in found.listed:
        return "was found and is not in its process"
    return f"is missing (found: {', '.join(found.listed) or 'none'})"


@dataclass(frozen=True)
class NixlStep:
    """Sees that the NIXL that vLLM will import is the planned one, with a plugin that carries.

    env: of the role. An import takes a second, so it is looked at once a boot.
    """

    backends: tuple[str, ...]
    software: Software
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    run: Run = run_fact
    needs: tuple[str, ...] = ("software",)
    name: str = "nixl"
    phase: NodePhase = "software"
    frequency: Frequency = "boot"
    timeout_seconds: float = 120

    @property
    def key(self) -> str:
        """Digest of what must be found, and where."""
        s = self.software
        pins = sorted(s.distributions.items())
        return key_of((self.backends, s.python, s.image, pins, planned(s), self._steering))

    @property
    def _steering(self) -> dict[str, str]:
        return {name: self.env[name] for name in STEERING if name in self.env}

    def check(self) -> Check:
        """Import it."""
        found = self._imported()
        wrong = faults(self.backends, self.software, found)
        if wrong or isinstance(found, Unknown):
            return Check(done=False, detail="; ".join(wrong))
        plugins = ", ".join(f"{n} of {p}" for n, p in sorted(found.loaded.items()))
        return Check(done=True, detail=f"{found.version} of {found.bindings}, {plugins}")

    def apply(self, deadline: float) -> None:
        """Refuse, unless it is there by now: whatever brought another one would bring it again.

        Raises:
            StepError: it is not as planned, with what to do.
        """
        del deadline
        if not (wrong := faults(self.backends, self.software, self._imported())):
            return
        home = Path(self.software.python).parent.parent
        remedy = f"remove what shadows it, or {home} to have it installed anew"
        if self.software.runtime == "container":
            remedy = "use an image that has it: moe-serving:vllm.image"
        raise StepError(
            f"NIXL is not as planned: {'; '.join(wrong)}. vLLM is not started; {remedy}"
        )

    def _imported(self) -> NixlImport | Unknown:
        command = container.python(self.software, PROGRAM, self.backends, self._steering)
        return read(command, parse, self.run)
