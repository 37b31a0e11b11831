"""The library of the all2all backend: what Python really imports, before vLLM starts.

A base image's own `deep_ep` can shadow the one that was built for EFA, and logs still say DeepEP:
only the imported file, its version and its interface tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from node_bootstrap import durable, jsondata, runner
from node_bootstrap.assignment import Backend, Software
from node_bootstrap.facts.base import Unknown, first_line
from node_bootstrap.facts.read import Run, read
from node_bootstrap.facts.read import run as run_fact
from node_bootstrap.places import Places
from node_bootstrap.status import BackendReport, NodePhase
from node_bootstrap.steps import container, installers
from node_bootstrap.steps.base import Check, Frequency, StepError

V2 = "deepep_v2"
STEERING = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "VLLM_NCCL_SO_PATH")
"""Variables of the role that decide which files are loaded."""
_QUERY = """
import importlib, importlib.metadata as m, json, sys
name, backend = sys.argv[1:]
def refused():
    from vllm.utils import import_utils as own
    if hasattr(own, "deep_ep_v2_unavailable_reason"):
        return own.deep_ep_v2_unavailable_reason() or ""
    return "" if own.has_deep_ep_v2() else "vLLM's has_deep_ep_v2() is False: look at NCCL"
try:
    module = importlib.import_module(name)
    refusal = refused() if backend == "deepep_v2" and hasattr(module, "ElasticBuffer") else ""
except BaseException as error:
    print("IMPORTED " + json.dumps({"error": f"{type(error).__name__}: {error}"[:300]}))
    sys.exit(0)
found = [d for d in m.packages_distributions().get(name, [])]
print("IMPORTED " + json.dumps({
    "file": getattr(module, "__file__", None) or "",
    "version": m.version(found[0]) if found else str(getattr(module, "__version__", "")),
    "uccl": getattr(sys.modules.get("uccl.ep"), "__file__", None) or "",
    "refusal": refusal[:300],
    "names": sorted(n for n in ("Buffer", "ElasticBuffer", "AllToAll") if hasattr(module, n)),
}))
"""


@dataclass(frozen=True)
class Imported:
    """What one import gave. names: of its interfaces that backends use. error: why it failed.

    uccl: the file of UCCL's kernels, where the import took them. refusal: why vLLM's own check of
    the backend, where it has one, does not take the library.
    """

    file: str = ""
    version: str = ""
    uccl: str = ""
    refusal: str = ""
    names: tuple[str, ...] = ()
    error: str = ""


def parse(output: str) -> Imported | Unknown:
    """The line that the query prints; libraries print their own lines around it."""
    for line in output.splitlines():
        if line.startswith("IMPORTED "):
            try:
                return jsondata.from_json(Imported, line.removeprefix("IMPORTED "))
            except jsondata.ContractError as error:
                return Unknown(str(error))
    return Unknown(f"the import told nothing: {first_line(output)}")


def query(software: Software, backend: Backend, env: Mapping[str, str]) -> tuple[str, ...]:
    """The command that imports the backend's module where vLLM will. env: of the role."""
    return container.python(software, _QUERY, (backend.module, backend.name), steering(env))


def steering(env: Mapping[str, str]) -> dict[str, str]:
    """Of the role's environment, what decides which files are loaded."""
    return {name: env[name] for name in STEERING if name in env}


def fault(backend: Backend, software: Software, found: Imported | Unknown) -> str:
    """Why the backend can't start with what was imported; empty when it can."""
    if isinstance(found, Unknown):
        return f"{backend.module}: {found.unknown}"
    if found.error:
        return f"{backend.module} can't be imported: {found.error}"
    if wrong := _interface_fault(backend, found):
        return wrong
    # The wrapper has the name and interface of DeepEP, and a version of its own that tells nothing.
    if installers.component(software, installers.UCCL) and not found.uccl:
        return f"{found.file} is not UCCL's wrapper: a stock DeepEP shadows it, and needs IBGDA"
    return ""


def _interface_fault(backend: Backend, found: Imported) -> str:
    if backend.name == V2 and "ElasticBuffer" not in found.names:
        return (
            f"{found.file} (version {found.version or 'unknown'}) has no ElasticBuffer: it is "
            "DeepEP of the first interface, and shadows the one that deepep_v2 needs"
        )
    if found.refusal:
        return f"{found.file} is not taken by vLLM: {found.refusal}"
    if backend.name != V2 and backend.module == "deep_ep" and "Buffer" not in found.names:
        return f"{found.file} has no Buffer: it is no DeepEP"
    return ""


@dataclass(frozen=True)
class LibraryStep:
    """Sees that the backend's library is the right one; brings it, or falls back as allowed.

    What it falls back to is this node's word: the group's nodes agree on what all of them run.
    bring: gets and installs what is missing until a deadline; None where an image is all there is.
    env: of the role.
    """

    backend: Backend
    software: Software
    places: Places
    boot_id: str
    bring: Callable[[float], None] | None = None
    run: Run = run_fact
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    name: str = "backend"
    phase: NodePhase = "software"
    frequency: Frequency = "change"
    timeout_seconds: float = 3600
    needs: tuple[str, ...] = ("software",)

    @property
    def key(self) -> str:
        """Digest of backend, image, components and what steers the import."""
        steered = steering(self.env)
        parts = (self.backend, self.software.image, self.software.components)
        text = repr((*parts, steered) if steered else parts)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def check(self) -> Check:
        """Import it once a boot and environment; an import takes seconds, so remember it."""
        known = durable.load(self.places.backend, BackendRecord)
        if known is not None and known.key == self._mark:
            return Check(done=True, detail=_words(known.report, known.found))
        found = read(query(self.software, self.backend, self.env), parse, self.run)
        wrong = fault(self.backend, self.software, found)
        if wrong:
            return Check(done=False, detail=wrong)
        report = BackendReport(self.backend.name, self.backend.name)
        file = found.file if isinstance(found, Imported) else ""
        self._remember(report, file)
        return Check(done=True, detail=_words(report, file))

    def apply(self, deadline: float) -> None:
        """Bring it; where that fails or does not help, fall back or refuse.

        Raises:
            StepError: the library is not there, and no other backend may be used.
        """
        wrong = self.check().detail
        if self.bring is not None:
            try:
                self.bring(deadline)
                if (again := self.check()).done:
                    return
                wrong = again.detail
            except (StepError, runner.CommandError) as error:
                wrong = f"{wrong}; it could not be brought: {error}"
        if not self.backend.fallback:
            raise StepError(
                f"{self.backend.name} can't run: {wrong}. Use an image that has it, or let the "
                "group start without: allow_fallback: true"
            )
        self._remember(BackendReport(self.backend.name, self.backend.fallback, wrong), "")

    @property
    def _mark(self) -> str:
        return f"{self.key} {self.boot_id} {self._environment}".strip()

    @property
    def _environment(self) -> str:
        """Which virtual environment it is: one made anew has lost what was built into it."""
        if self.software.runtime == "container":
            return ""
        try:
            made = Path(self.software.python).parent.with_name("pyvenv.cfg").stat()
        except OSError:
            return ""
        return f"{made.st_ino}-{made.st_mtime_ns}"

    def _remember(self, report: BackendReport, found: str) -> None:
        before = durable.load(self.places.backend, BackendRecord)
        # The same answer in the same boot: what the group agreed on still stands.
        same = before and before.report == report and self.boot_id in before.key.split()
        agreed = before.agreed if before and same else None
        durable.save(self.places.backend, BackendRecord(self._mark, report, found, agreed))


@dataclass(frozen=True)
class BackendRecord:
    """What was decided. key: of step, boot and environment. found: the imported file.

    report: what this node can run. agreed: what all nodes of its group run, once they agreed.
    """

    key: str
    report: BackendReport
    found: str = ""
    agreed: BackendReport | None = None


def in_effect(
    argv: Sequence[str], env: dict[str, str], report: BackendReport | None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The role's command line and environment with the backend that was decided on."""
    if report is None or report.in_effect == report.planned:
        return tuple(argv), env
    words = list(argv)
    for index, word in enumerate(words):
        if word == "--all2all-backend":
            words[index + 1] = report.in_effect
    variable = "VLLM_ALL2ALL_BACKEND"
    return tuple(words), env | ({variable: report.in_effect} if variable in env else {})


def decided(places: Places) -> BackendReport | None:
    """What vLLM is started with; None where the role needs no library."""
    record = durable.load(places.backend, BackendRecord)
    return (record.agreed or record.report) if record else None


def able(places: Places) -> BackendReport | None:
    """What this node can run, whatever the others can; None where the role needs no library."""
    record = durable.load(places.backend, BackendRecord)
    return record.report if record else None


def agree(places: Places, name: str, why: str) -> bool:
    """Take what the group's nodes agreed on; whether that changes what vLLM is started with.

    name: empty: as planned. why: it is another than planned.
    """
    record = durable.load(places.backend, BackendRecord)
    if record is None:
        return False
    planned, before = record.report.planned, record.agreed or record.report
    agreed = BackendReport(planned, name or planned, why)
    if agreed != record.agreed:
        durable.save(places.backend, replace(record, agreed=agreed))
    return before.in_effect != agreed.in_effect


def _words(report: BackendReport, found: str) -> str:
    if report.in_effect == report.planned:
        return f"{report.planned} with {found}"
    return f"{report.in_effect} instead of {report.planned}: {report.why}"
