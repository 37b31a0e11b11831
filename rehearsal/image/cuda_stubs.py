"""Stand-ins for the CUDA libraries that PyTorch links but never calls on a machine without a GPU.

The package index serves PyTorch for Linux as the CUDA build only, and its libraries name 1.6 GB of
others that the dynamic loader must find before `import torch` returns. A stand-in exports the
symbols that PyTorch asks of it, with the version each is asked for, and ends the process with a
sentence if one is called.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

TOOLS = ("gcc", "nm")

STANDS_IN: Mapping[str, str] = {
    # soname: prefix of the symbols that are asked for without a version
    "libcublas.so.13": "cublas",
    "libcublasLt.so.13": "cublasLt",
    "libcudnn.so.9": "cudnn",
    "libcufft.so.12": "cufft",
    "libcurand.so.10": "curand",
    "libcusparse.so.12": "cusparse",
    "libcusparseLt.so.0": "cusparseLt",
    "libnccl.so.2": "nccl",
    "libnvrtc.so.13": "nvrtc",
    "libnvshmem_host.so.3": "nvshmem",
}
# nvshmem's version node is not its soname, as the others' are.
VERSION_NODES: Mapping[str, str] = {"NVSHMEM": "libnvshmem_host.so.3"}

SOURCE_HEAD = """\
#include <stdio.h>
#include <stdlib.h>
static void refuse(const char *name) {
    fprintf(stderr, "%s was called, but this vLLM runtime is for CPU: "
                    "its CUDA libraries are stand-ins.\\n", name);
    abort();
}
"""


@dataclass(frozen=True)
class Library:
    """One stand-in: what it must export."""

    soname: str
    versioned: Mapping[str, tuple[str, ...]]  # version node: symbols
    plain: tuple[str, ...]


def missing_tools() -> list[str]:
    """The programs of TOOLS that this machine lacks."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def build(torch_lib: Path) -> None:
    """Compile the stand-ins into PyTorch's own library folder, where its run path looks ($ORIGIN).

    Args:
        torch_lib: site-packages/torch/lib of the runtime.

    Raises:
        subprocess.CalledProcessError: nm or gcc failed; its message is on stderr.
    """
    undefined = _symbols(sorted(torch_lib.glob("*.so")), "--undefined-only")
    for library in libraries(undefined):
        _compile(library, torch_lib)


def libraries(undefined: Iterable[str]) -> list[Library]:
    """Which stand-in exports which symbol.

    Args:
        undefined: symbols as nm prints them, `name` or `name@VERSION`.
    """
    names = set(undefined)
    return [_library(soname, prefix, names) for soname, prefix in STANDS_IN.items()]


def source(library: Library) -> str:
    """C source of a stand-in."""
    symbols = sorted({*library.plain, *(s for group in library.versioned.values() for s in group)})
    functions = (f'void {symbol}(void) {{ refuse("{symbol}"); }}\n' for symbol in symbols)
    return SOURCE_HEAD + "".join(functions)


def version_script(library: Library) -> str:
    """Linker script that gives each symbol the version it is asked for with."""
    nodes = []
    for node, symbols in sorted(library.versioned.items()):
        nodes.append(f"{node} {{ global: {' '.join(f'{s};' for s in sorted(symbols))} }};\n")
    return "".join(nodes)


def _library(soname: str, prefix: str, names: set[str]) -> Library:
    versioned: dict[str, list[str]] = {}
    plain: list[str] = []
    longer = tuple(p for p in STANDS_IN.values() if p != prefix and p.startswith(prefix))
    for name in sorted(names):
        symbol, _, node = name.partition("@")
        if node:
            if VERSION_NODES.get(node, node) == soname:
                versioned.setdefault(node, []).append(symbol)
        elif symbol.startswith(prefix) and not (longer and symbol.startswith(longer)):
            plain.append(symbol)
    return Library(soname, {n: tuple(s) for n, s in versioned.items()}, tuple(plain))


def _symbols(files: Iterable[Path], which: str) -> set[str]:
    found: set[str] = set()
    for file in files:
        listing = subprocess.run(
            ["nm", "--dynamic", "--format=posix", which, str(file)],
            check=True,
            capture_output=True,
            text=True,
        )
        found.update(line.split()[0].replace("@@", "@") for line in listing.stdout.splitlines())
    return found


def _compile(library: Library, folder: Path) -> None:
    c_file = folder / f"{library.soname}.c"
    script = folder / f"{library.soname}.map"
    c_file.write_text(source(library))
    script.write_text(version_script(library))
    versions = [f"-Wl,--version-script={script}"] if library.versioned else []
    subprocess.run(
        [
            "gcc",
            "-shared",
            "-fPIC",
            "-O1",
            "-w",
            f"-Wl,-soname,{library.soname}",
            *versions,
            "-o",
            str(folder / library.soname),
            str(c_file),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    c_file.unlink()
    script.unlink()
