"""What a deployment must report before it counts as proven, from what was planned and made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.readiness import Deployment, ExpectedGateway, ExpectedGroup, ExpectedNode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.plan.plan import Plan
    from node_bootstrap.assignment import Assignment


def expected(
    plan: Plan,
    told: Mapping[str, Assignment],
    instances: Mapping[str, str],
    endpoint: str,
    failed_at: float | None = None,
) -> Deployment:
    """What the nodes must report before the deployment counts as proven."""
    first = told[plan.nodes[0].name]
    return Deployment(
        schema=1,
        stack=plan.stack,
        region=first.region,
        bucket=first.bucket,
        endpoint=endpoint,
        model=plan.model.name,
        vllm_version=plan.vllm_version,
        nodes={
            name: ExpectedNode(
                instance_id=instances[name],
                private_ip=assignment.me.address,
                revision=assignment.revision,
                archive_sha256=assignment.archive.sha256,
            )
            for name, assignment in told.items()
        },
        groups={
            group.name: ExpectedGroup(
                nodes=tuple(node.name for node in group.nodes),
                revision=told[group.primary.name].revision,
                ranks=group.data_parallel_size,
                expert_parallel_size=group.expert_parallel_size,
            )
            for group in plan.groups
        },
        gateway=ExpectedGateway(plan.gateway.node) if plan.gateway else None,
        failed_at=failed_at,
    )
