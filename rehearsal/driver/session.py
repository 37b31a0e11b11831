"""One command on one stack: the account it talks to, the CLI, and what both need beforehand."""

from __future__ import annotations

import os
from dataclasses import dataclass

import boto3

from infra.sources import stacks
from rehearsal import engine
from rehearsal.driver import account_process, plugin, stackfile, system
from rehearsal.driver.pulumi import Pulumi
from rehearsal.image import model, rootfs, vllm, wheels
from rehearsal.paths import CHECKOUT, Home

MADE_HERE = "build/models/tiny-qwen3-moe"
"""The model folder that set-up makes; any other is the person's own."""
WAIT_VARIABLE = "MOE_SERVING_WAIT"
"""With the value no, the program writes its record without waiting for the endpoint."""


@dataclass(frozen=True)
class Session:
    """What the commands work with."""

    pulumi: Pulumi
    endpoint: engine.Endpoint
    aws: boto3.Session


@dataclass(frozen=True)
class Prepared:
    """What was built or found. hardware: None where nothing is to boot."""

    engine: engine.Engine
    hardware: account_process.Hardware | None


def prepare(stack: stackfile.StackFile, *, boot: bool, bare: bool = False) -> Prepared:
    """Build or find all that `up` of a stack needs on this machine.

    Cheap checks come first: a machine that can't boot nodes is told so before anything is built.

    Args:
        stack: the stack's file.
        boot: instances boot.
        bare: they find no vLLM, but a package index to install it from.

    Raises:
        DriverError: something of the system is missing.
        EngineError: the Pulumi CLI can't be found or built.
    """
    if boot:
        system.require_bootable()
    found = engine.ensure()
    hardware = None
    if boot:
        image = rootfs.ensure()
        if bare:
            hardware = account_process.Hardware(image, (), wheels.ensure())
        else:
            hardware = account_process.Hardware(image, tuple(vllm.binds(vllm.ensure())))
    if str(stack.model.get("source", "")).rstrip("/") == MADE_HERE:
        model.ensure(CHECKOUT / MADE_HERE)
    return Prepared(found, hardware)


def connect(
    home: Home,
    stack: str,
    found: Prepared,
    provider: plugin.ProviderChoice,
    *,
    wait: bool = True,
) -> Session:
    """Start the account where it doesn't run, and return what works on a stack of it.

    From here on this process's own environment is the rehearsal's: boto3 and every child see it.

    Args:
        home: the rehearsal.
        stack: the stack's name; its file may be gone where only `down` is left to do.
        found: what `prepare` found.
        provider: which provider Pulumi uses.
        wait: whether the program waits for the endpoint; pointless where nothing boots.

    Raises:
        DriverError: the account didn't start, or the real provider is missing.
    """
    source = stackfile.read(stacks(), stack) if stackfile.exists(stacks(), stack) else None
    region = source.region if source else stackfile.DEFAULT_REGION
    endpoint = account_process.start(home, region, found.hardware)
    added = engine.environment(home, endpoint, found.engine)
    if not wait:
        added[WAIT_VARIABLE] = "no"
    changed = engine.for_child(os.environ, added)
    os.environ.clear()
    os.environ.update(changed)
    plugin.use(provider, home)
    pulumi = Pulumi(found.engine.pulumi, stack, CHECKOUT, home, changed)
    if source is not None:
        stackfile.write_copy(source, pulumi.config_file)
    return Session(pulumi, endpoint, boto3.Session(region_name=endpoint.region))
