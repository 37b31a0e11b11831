"""Compiled kernels that one group leaves for the next: under which key, and how much at most."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from node_bootstrap.assignment import KERNELS_PREFIX, KernelCache

if TYPE_CHECKING:
    from infra.plan.plan import Group, Plan

MOST_BYTES = 4 * 2**30
"""S3 takes 5 GB in one piece."""


def kernel_cache(plan: Plan, group: Group) -> KernelCache | None:
    """Where a group's compiled kernels are kept; None on nodes without GPUs, which compile none.

    The key holds release, GPU and layout for people, and a digest of all that kernels may depend
    on: software, model and its commit, the command line and environment without addresses. So all
    replicas of a group share one entry, and a change of any option is another one.
    """
    primary = group.primary
    if not primary.hardware.gpu_count:
        return None
    model = plan.model
    basis = {
        "software": [(c.name, c.version) for c in primary.software.components],
        "image": primary.software.image,
        "distributions": sorted(primary.software.distributions.items()),
        "model": [model.name, model.source, model.revision, [f.sha256 for f in model.files]],
        "gpu": primary.hardware.gpu_name,
        "argv": [_plain(plan, a) for a in primary.argv],
        "env": sorted((k, _plain(plan, v)) for k, v in primary.env.items()),
    }
    digest = hashlib.sha256(json.dumps(basis).encode()).hexdigest()[:16]
    shape = f"{len(group.nodes)}x{group.gpus_per_node}"
    gpu = re.sub(r"[^A-Za-z0-9]+", "", primary.hardware.gpu_name) or "gpu"
    return KernelCache(
        f"{KERNELS_PREFIX}vllm{plan.vllm_version}-{gpu}-{shape}-{digest}.tar.gz", MOST_BYTES
    )


def _plain(plan: Plan, text: str) -> str:
    """Without what differs between replicas."""
    for node in plan.nodes:
        text = text.replace(node.address, "")
    return text
