"""The library of the all2all backend: what Python really imports, before vLLM starts.

A base image's own `deep_ep` can shadow the one that was built for EFA, and logs still say DeepEP:
only the imported file, its version and its interface tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
_QUERY = """
import importlib, importlib.metadata as m, json, sys
name = sys.argv[1]
try:
    module = importlib.import_module(name)
except BaseException as error:
    print("IMPORTED " + json.dumps({"error": f"{type(error).__name__}: {error}"[:300]}))
    sys.exit(0)
found = [d for d in m.packages_distributions().get(name, [])]
print("IMPORTED " + json.dumps({
    "file": getattr(module, "__file__", None) or "",
    "version": m.version(found[0]) if found else str(getattr(module, "__version__", "")),
    "names": sorted(n for n in ("Buffer", "ElasticBuffer", "AllToAll") if hasattr(module, n)),
}))
"""


@dataclass(frozen=True)
class Imported:
    """What one import gave. names: of its interfaces that backends use. error: why it failed."""

    file: str = ""
    version: str = ""
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


def query(software: Software, module: str) -> tuple[str, ...]:
    """The command that imports the module where vLLM will."""
    if software.runtime == "venv":
        return (software.python, "-c", _QUERY, module)
    docker = (container.DOCKER, "run", "--rm", "--network", "none", "--gpus", "all")
    return (*docker, "--entrypoint", "python3", software.image or "", "-c", _QUERY, module)


def fault(backend: Backend, software: Software, found: Imported | Unknown) -> str:
    """Why the backend can't start with what was imported; empty when it can."""
    if isinstance(found, Unknown):
        return f"{backend.module}: {found.unknown}"
    if found.error:
        return f"{backend.module} can't be imported: {found.error}"
    if backend.name == V2 and "ElasticBuffer" not in found.names:
        return (
            f"{found.file} (version {found.version or 'unknown'}) has no ElasticBuffer: it is "
            "DeepEP of the first interface, and shadows the one that deepep_v2 needs"
        )
    if backend.name != V2 and backend.module == "deep_ep" and "Buffer" not in found.names:
        return f"{found.file} has no Buffer: it is no DeepEP"
    if installers.component(software, installers.UCCL) and not _is_uccl(found):
        return f"{found.file} is not UCCL's wrapper: a stock DeepEP shadows it, and needs IBGDA"
    return ""


def _is_uccl(found: Imported) -> bool:
    return "uccl" in found.file.lower() or "uccl" in found.version.lower()


@dataclass(frozen=True)
class LibraryStep:
    """Sees that the backend's library is the right one; brings it, or falls back as allowed.

    bring: gets and installs what is missing until a deadline; None where an image is all there is.
    alone: no other node is in the group: only then can one node choose another backend.
    """

    backend: Backend
    software: Software
    places: Places
    boot_id: str
    alone: bool
    bring: Callable[[float], None] | None = None
    run: Run = run_fact
    name: str = "backend"
    phase: NodePhase = "software"
    frequency: Frequency = "change"
    timeout_seconds: float = 3600
    needs: tuple[str, ...] = ("software",)

    @property
    def key(self) -> str:
        """Digest of backend, image and components."""
        text = repr((self.backend, self.software.image, self.software.components))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def check(self) -> Check:
        """Import it once a boot; remember what came of it, since an import takes seconds."""
        known = durable.load(self.places.backend, BackendRecord)
        if known is not None and known.key == self._mark:
            return Check(done=True, detail=_words(known.report, known.found))
        found = read(query(self.software, self.backend.module), parse, self.run)
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
        if not self.alone:
            raise StepError(
                f"{self.backend.name} can't run: {wrong}. The group spans nodes, and all its "
                f"ranks must run one backend: set all2all_backend: {self.backend.fallback}"
            )
        self._remember(BackendReport(self.backend.name, self.backend.fallback, wrong), "")

    @property
    def _mark(self) -> str:
        return f"{self.key} {self.boot_id}"

    def _remember(self, report: BackendReport, found: str) -> None:
        durable.save(self.places.backend, BackendRecord(self._mark, report, found))


@dataclass(frozen=True)
class BackendRecord:
    """What was decided. key: of the step and the boot. found: the imported file."""

    key: str
    report: BackendReport
    found: str = ""


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
    """What was decided last; None where the role needs no library."""
    record = durable.load(places.backend, BackendRecord)
    return record.report if record else None


def _words(report: BackendReport, found: str) -> str:
    if report.in_effect == report.planned:
        return f"{report.planned} with {found}"
    return f"{report.in_effect} instead of {report.planned}: {report.why}"
