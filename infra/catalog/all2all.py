"""All2all backends: what each needs and how far it reaches."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from infra.catalog.instances import UnknownNameError

Reach = Literal["group", "nvlink", "ibgda", "gin", "rocm"]


@dataclass(frozen=True)
class All2AllBackend:
    """One backend. `reach` says over what its tokens can travel; see the head of all2all.toml."""

    name: str
    since: tuple[int, int]
    reach: Reach
    library: str
    capability: tuple[int, int]
    activation: str
    graphs: str
    dual_batch_overlap: bool
    max_top_k: int | None
    unquantized_only: bool
    no_eplb: bool
    eager_only: bool
    nccl: str | None
    aws_ofi_nccl: str | None
    gdrcopy: str | None
    because: str

    @property
    def batched(self) -> bool:
        """Whether each expert gets its own padded batch."""
        return self.activation == "batched"


def all2all_backend(name: str) -> All2AllBackend:
    """The backend of that name; UnknownNameError with near names otherwise."""
    known = all2all_backends()
    if name not in known:
        raise UnknownNameError("all2all backend", name, sorted(known))
    return known[name]


@functools.cache
def all2all_backends() -> dict[str, All2AllBackend]:
    """Every backend by name. Treat the dictionary as read-only."""
    text = (resources.files(__package__ or "infra.catalog") / "all2all.toml").read_text()
    return {name: _backend(name, row) for name, row in tomllib.loads(text)["backend"].items()}


def _backend(name: str, row: dict[str, Any]) -> All2AllBackend:
    return All2AllBackend(
        name=name,
        since=_pair(row["since"]),
        reach=row["reach"],
        library=row["library"],
        capability=_pair(row["capability"]),
        activation=row["activation"],
        graphs=row["graphs"],
        dual_batch_overlap=row["dbo"],
        max_top_k=row.get("max_top_k"),
        unquantized_only=row.get("unquantized_only", False),
        no_eplb=row.get("no_eplb", False),
        eager_only=row.get("eager_only", False),
        nccl=row.get("nccl"),
        aws_ofi_nccl=row.get("aws_ofi_nccl"),
        gdrcopy=row.get("gdrcopy"),
        because=row["because"],
    )


def _pair(version: str) -> tuple[int, int]:
    major, minor, *_ = version.split(".")
    return int(major), int(minor)
