"""One Pulumi stack is one deployment: from settings to an endpoint that has answered."""

from __future__ import annotations

import os

import pulumi

from infra import archive, buildable, model, sources
from infra.checks import Severity
from infra.faults import NAMESPACE, SettingsError
from infra.planning import PlanError, check, make_plan
from infra.resources.deployment import Stack, StackArgs
from infra.sources import PROJECT


def main() -> None:
    """The story: settings, plan, resources, outputs."""
    stack = pulumi.get_stack()

    # What the user said, judged whole; then the model, then everything that follows from both.
    source = sources.from_pulumi(pulumi.runtime.get_config_env(), stack)
    settings = sources.load(source, stack)
    buildable.require(settings)
    facts = model.facts(settings.model, source.base)
    plan = make_plan(stack, settings, facts, source.region)
    for finding in check(plan):
        say = pulumi.log.warn if finding.severity is Severity.WARNING else pulumi.log.info
        say(f"{finding.code} {finding.where}: {finding.message} {finding.remedy}")

    # What the nodes will run to bring themselves there and stay there.
    bootstrap = archive.build(PROJECT, say=pulumi.log.info)

    # Network, bucket, secrets, addresses, nodes; last the record, once the endpoint has answered.
    deployment = Stack(
        StackArgs(
            region=sources.require_region(source, os.environ),
            profile=source.profile,
            settings=settings,
            plan=plan,
            model=facts.folder,
            archive=bootstrap,
            huggingface_token=pulumi.Config(NAMESPACE).get_secret(sources.TOKEN_KEY),
        )
    )

    for name, value in deployment.outputs().items():
        pulumi.export(name, value)
    pulumi.run(deployment.settle)


try:
    main()
except (SettingsError, PlanError, archive.ArchiveError) as error:
    # A RunError is shown as its sentences alone: a traceback helps nobody to mend a setting.
    raise pulumi.RunError(str(error)) from error
