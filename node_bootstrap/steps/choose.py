"""Which steps a node runs: those that its assignment calls for, and no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from node_bootstrap.assignment import Assignment, Gateway
from node_bootstrap.facts.read import Run
from node_bootstrap.facts.read import run as run_fact
from node_bootstrap.gateway.layout import Files
from node_bootstrap.gateway.step import GatewayStep, PackagesStep
from node_bootstrap.gateway.units import Systemd
from node_bootstrap.places import Places
from node_bootstrap.steps import installers, kernels, stage
from node_bootstrap.steps.base import Step
from node_bootstrap.steps.container import ImageStep
from node_bootstrap.steps.disks import DisksStep
from node_bootstrap.steps.fabric import EfaStep, GdrcopyStep
from node_bootstrap.steps.hardware import HardwareStep
from node_bootstrap.steps.host import HostStep
from node_bootstrap.steps.kernels import KernelsStep
from node_bootstrap.steps.library import LibraryStep
from node_bootstrap.steps.nccl import NcclStep
from node_bootstrap.steps.nixl import NixlStep
from node_bootstrap.steps.prefix import Lister, PrefixWeightsStep
from node_bootstrap.steps.role_unit import RoleStep
from node_bootstrap.steps.software import SoftwareStep
from node_bootstrap.steps.stage import AwaitStep, Staged, StageStep
from node_bootstrap.steps.weights import Reader, WeightsStep
from node_bootstrap.steps.wheels import Shelf, Wheels, WheelsStep


class StackBucket(stage.Bucket, kernels.Shelf, Protocol):
    """The stack's bucket for all that nodes leave one another."""


@dataclass(frozen=True)
class Node:
    """What the steps of one node work with.

    gate: makes the hardware gate. read: reads an object of S3. interface: name of the one that
    carries the node's address. parameters: values of SSM parameters. shelf: built wheels.
    list_objects: lists a prefix of S3. bucket: of the stack. tell: what a step is at, for people.
    """

    places: Places
    boot_id: str
    gate: Callable[[Assignment, tuple[str, ...]], HardwareStep]
    read: Reader
    interface: Callable[[], str]
    parameters: Callable[[Sequence[str]], Mapping[str, str]]
    systemd: bool = True
    run: Run = run_fact
    shelf: Shelf | None = None
    list_objects: Lister | None = None
    bucket: StackBucket | None = None
    tell: Callable[[str], None] = lambda _: None


def steps(assignment: Assignment, node: Node) -> tuple[Step, ...]:
    """The steps, in the order of their reports; a step may need only those before it."""
    if assignment.target == "image":
        return _of_an_image(assignment, node)
    if assignment.gateway is not None:
        return _gateway(assignment, assignment.gateway, node)
    before = _host(assignment, node) if assignment.hardware.gpu_count else ()
    fabric = [step.name for step in before if step.name in ("efa", "gdrcopy")]
    # The gate counts EFA devices, so it looks once their module is there.
    gate = node.gate(assignment, ("host", *fabric) if before else ())
    after = _software(assignment, node)
    disks = assignment.hardware.local_disks
    middle = (DisksStep(disks, node.places, node.run),) if disks else ()
    large = ("disks",) if middle else ()
    staging = _stage(assignment, node)
    weights = _weights(assignment, node, ("hardware", *large, *(step.name for step in staging)))
    backend = (*_backend(assignment, node), *_nixl(assignment, node))
    compiled = _kernels(assignment, node, ("hardware", *large))
    role = _role(assignment, node, tuple(step.name for step in (*backend, *compiled)))
    return (*before, gate, *middle, *after, *backend, *staging, weights, *compiled, role)


def _of_an_image(assignment: Assignment, node: Node) -> tuple[Step, ...]:
    """All that is not one node's own: no gate, disks, weights or role.

    They are the steps of the node that boots from the image, which finds their work done.
    """
    before = _host(assignment, node) if assignment.hardware.gpu_count else ()
    software = _software(assignment, node)
    wheels = _wheels(assignment, node)
    needs = tuple(step.name for step in software)
    record = node.places.state / "wheels"
    more = (WheelsStep(wheels, record, needs=needs),) if wheels else ()
    made: list[Any] = [*before, *software, *more]
    names = {step.name for step in made}
    return tuple(replace(s, needs=tuple(n for n in s.needs if n in names)) for s in made)


def _gateway(assignment: Assignment, gateway: Gateway, node: Node) -> tuple[Step, ...]:
    return (
        node.gate(assignment, ()),
        *_stage(assignment, node),
        SoftwareStep(assignment.software),
        PackagesStep(gateway.packages),
        GatewayStep(assignment, gateway, Files(node.places), Systemd(), node.parameters),
    )


def _host(assignment: Assignment, node: Node) -> tuple[Step, ...]:
    hardware, software, places = assignment.hardware, assignment.software, node.places
    builder = assignment.target == "image"
    found: list[Step] = [HostStep(hardware, software, places, node.boot_id, node.run, builder)]
    efa = installers.component(software, installers.EFA_DRIVER)
    if efa is not None and hardware.efa_devices:
        found.append(EfaStep(efa, hardware.efa_devices, places, node.run, builder))
    gdrcopy = installers.component(software, installers.GDRCOPY)
    if gdrcopy is not None:
        found.append(GdrcopyStep(gdrcopy, places, node.run, builder))
    return tuple(found)


def _software(assignment: Assignment, node: Node) -> tuple[Step, ...]:
    software = assignment.software
    if software.runtime == "container":
        return (ImageStep(software, node.places, node.run),)
    return (SoftwareStep(software), *_nccl(assignment, node))


def _nccl(assignment: Assignment, node: Node) -> tuple[Step, ...]:
    software = assignment.software
    part = installers.component(software, installers.NCCL)
    major = installers.cuda_major(software)
    script = installers.nccl(part, software.python, major) if part else None
    if part is None or script is None:
        return ()
    return (NcclStep(part, software.python, major, script, node.places),)


def _backend(assignment: Assignment, node: Node) -> tuple[Step, ...]:
    if assignment.backend is None:
        return ()
    software, wheels = assignment.software, _wheels(assignment, node)
    step = LibraryStep(
        assignment.backend,
        software,
        node.places,
        node.boot_id,
        wheels.bring if wheels else None,
        node.run,
        assignment.env,
        needs=("software", *(step.name for step in _software(assignment, node)[1:])),
    )
    return (step,)


def _nixl(assignment: Assignment, node: Node) -> tuple[Step, ...]:
    transfer = assignment.kv_transfer
    if transfer is None:
        return ()
    needs = tuple(step.name for step in _software(assignment, node))
    return (NixlStep(transfer.backends, assignment.software, assignment.env, node.run, needs),)


def _wheels(assignment: Assignment, node: Node) -> Wheels | None:
    """None where nothing is to be built, or nowhere to keep it."""
    software, work = assignment.software, node.places.state / "build"
    gpu, folder = assignment.hardware.gpu_name, work / "wheels"
    major = installers.cuda_major(software)
    recipes = installers.wheels(software, gpu, major, work, folder)
    if not recipes or node.shelf is None:
        return None
    return Wheels(software, gpu, major, node.places, node.shelf, recipes, folder)


def _stage(assignment: Assignment, node: Node) -> tuple[Step, ...]:
    """On the one node that the plan names: no two copy at once."""
    weights, planned = assignment.weights, assignment.weights.stage
    if planned is None or planned.node != assignment.node or node.bucket is None:
        return ()
    name = planned.token_parameter

    def token() -> str:
        return node.parameters([name])[name] if name else ""

    done = node.places.state / "staged"
    return (StageStep(weights, planned, node.bucket, token, node.tell, done),)


def _weights(assignment: Assignment, node: Node, needs: tuple[str, ...]) -> Step:
    wanted, ledger = assignment.weights, node.places.state / "weights.json"
    listing, list_objects = node.places.state / "weights-list.json", node.list_objects
    seconds = WeightsStep.timeout_seconds
    if wanted.stage is not None and node.bucket is not None:
        seconds = StageStep.timeout_seconds
        list_objects = Staged(node.bucket, wanted.stage, node.tell, seconds)
        if wanted.fetch == "nothing":
            return AwaitStep(wanted, list_objects, node.places.state / "awaited", needs=needs)
    if wanted.fetch == "prefix" and list_objects is not None:
        return PrefixWeightsStep(
            wanted, node.read, list_objects, ledger, listing, needs, timeout_seconds=seconds
        )
    return WeightsStep(wanted, node.read, ledger, needs=needs)


def _kernels(assignment: Assignment, node: Node, needs: tuple[str, ...]) -> tuple[Step, ...]:
    wanted, places = assignment.kernel_cache, node.places
    if wanted is None or node.bucket is None:
        return ()
    scratch, state = places.state / "scratch", places.kernels
    return (KernelsStep(wanted, node.bucket, places.cache, scratch, state, needs=needs),)


def _role(assignment: Assignment, node: Node, needs: tuple[str, ...]) -> RoleStep:
    return RoleStep(
        assignment,
        node.places,
        node.interface,
        node.parameters,
        node.systemd,
        needs=("hardware", "software", "weights", *needs),
    )
