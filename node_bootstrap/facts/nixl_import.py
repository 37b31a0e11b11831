"""What `import nixl` gives where vLLM runs: which package, which version, which plugins.

NIXL lists a plugin whose file is there even if its libraries are not: only one that is mapped into
the process can carry anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from node_bootstrap import jsondata
from node_bootstrap.facts.base import Unknown, first_line

_MARK = "NIXL-IMPORTED "
PROGRAM = """
import ctypes, importlib.metadata as m, json, pathlib, sys
def tell(**found):
    print("NIXL-IMPORTED " + json.dumps(found))
    sys.exit(0)
def named(error):
    return f"{type(error).__name__}: {error}"[:300]
try:
    import nixl
    from nixl import _api
    file, bindings = nixl.__file__ or "", _api.__file__ or ""
    version = m.version("nixl")
except BaseException as error:
    tell(error=named(error))
try:
    agent = _api.nixl_agent("moe-look", _api.nixl_agent_config(backends=[]))
    listed = sorted(agent.get_plugin_list())
    for name in sys.argv[1:]:
        agent.get_plugin_params(name)
except BaseException as error:
    tell(file=file, bindings=bindings, version=version, error=named(error))
lines = pathlib.Path("/proc/self/maps").read_text().splitlines()
paths = sorted({line.split()[-1] for line in lines if "/libplugin_" in line})
loaded = {p.rpartition("/libplugin_")[2].partition(".")[0]: p for p in paths}
faults = {}
for name in sorted(set(sys.argv[1:]) - set(loaded)):
    for path in pathlib.Path(bindings).parent.parent.glob(f"*nixl*/plugins/libplugin_{name}.so"):
        try:
            ctypes.CDLL(str(path))
        except OSError as error:
            faults[name] = str(error)[:300]
tell(file=file, bindings=bindings, version=version, listed=listed, loaded=loaded, faults=faults)
"""
"""Arguments: backends, whose plugins it loads."""
COMMAND = ("python3", "-c", PROGRAM)


@dataclass(frozen=True)
class NixlImport:
    """What was imported. file: of the package; bindings: of the one for a CUDA release below it.

    listed: plugins that NIXL found. loaded: backend -> file of its plugin, of those asked for.
    faults: backend -> what the loader said of its plugin. error: why NIXL can't be used at all.
    """

    file: str = ""
    bindings: str = ""
    version: str = ""
    listed: tuple[str, ...] = ()
    loaded: dict[str, str] = field(default_factory=dict[str, str])
    faults: dict[str, str] = field(default_factory=dict[str, str])
    error: str = ""


def parse(output: str) -> NixlImport | Unknown:
    """The line that the program prints; NIXL logs its own lines around it."""
    for line in output.splitlines():
        if line.startswith(_MARK):
            try:
                return jsondata.from_json(NixlImport, line.removeprefix(_MARK))
            except jsondata.ContractError as error:
                return Unknown(str(error))
    return Unknown(f"the import of nixl told nothing: {first_line(output)}")
