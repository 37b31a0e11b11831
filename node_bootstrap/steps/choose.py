"""Which steps a node runs: those that its assignment calls for, and no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from node_bootstrap.assignment import Assignment, Gateway
from node_bootstrap.facts.read import Run
from node_bootstrap.facts.read import run as run_fact
from node_bootstrap.gateway.layout import Files
from node_bootstrap.gateway.step import GatewayStep, PackagesStep
from node_bootstrap.gateway.units import Systemd
from node_bootstrap.places import Places
from node_bootstrap.steps import installers
from node_bootstrap.steps.base import Step
from node_bootstrap.steps.container import ImageStep
from node_bootstrap.steps.disks import DisksStep
from node_bootstrap.steps.fabric import EfaStep, GdrcopyStep
from node_bootstrap.steps.hardware import HardwareStep
from node_bootstrap.steps.host import HostStep
from node_bootstrap.steps.library import LibraryStep
from node_bootstrap.steps.nccl import NcclStep
from node_bootstrap.steps.prefix import Lister, PrefixWeightsStep
from node_bootstrap.steps.role_unit import RoleStep
from node_bootstrap.steps.software import SoftwareStep
from node_bootstrap.steps.weights import Reader, WeightsStep
from node_bootstrap.steps.wheels import Shelf, Wheels

CUDA_MAJOR = 13
"""Of torch in releases from 0.20 on, which are those whose libraries are built on the node."""


@dataclass(frozen=True)
class Node:
    """What the steps of one node work with.

    gate: makes the hardware gate. read: reads an object of S3. interface: name of the one that
    carries the node's address. parameters: values of SSM parameters. shelf: built wheels.
    list_objects: lists a prefix of S3.
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


def steps(assignment: Assignment, node: Node) -> tuple[Step, ...]:
    """The steps, in the order of their reports; a step may need only those before it."""
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
    weights = _weights(assignment, node, ("hardware", *large))
    backend = _backend(assignment, node)
    role = _role(assignment, node, tuple(step.name for step in backend))
    return (*before, gate, *middle, *after, *backend, weights, role)


def _gateway(assignment: Assignment, gateway: Gateway, node: Node) -> tuple[Step, ...]:
    return (
        node.gate(assignment, ()),
        SoftwareStep(assignment.software),
        PackagesStep(gateway.packages),
        GatewayStep(assignment, gateway, Files(node.places), Systemd(), node.parameters),
    )


def _host(assignment: Assignment, node: Node) -> tuple[Step, ...]:
    hardware, software, places = assignment.hardware, assignment.software, node.places
    found: list[Step] = [HostStep(hardware, software, places, node.boot_id, node.run)]
    efa = installers.component(software, installers.EFA_DRIVER)
    if efa is not None and hardware.efa_devices:
        found.append(EfaStep(efa, hardware.efa_devices, places, node.run))
    gdrcopy = installers.component(software, installers.GDRCOPY)
    if gdrcopy is not None:
        found.append(GdrcopyStep(gdrcopy, places, node.run))
    return tuple(found)


def _software(assignment: Assignment, node: Node) -> tuple[Step, ...]:
    software = assignment.software
    if software.runtime == "container":
        return (ImageStep(software, node.places, node.run),)
    return (SoftwareStep(software), *_nccl(assignment, node))


def _nccl(assignment: Assignment, node: Node) -> tuple[Step, ...]:
    software = assignment.software
    part = installers.component(software, installers.NCCL)
    script = installers.nccl(part, software.python, CUDA_MAJOR) if part else None
    if part is None or script is None:
        return ()
    return (NcclStep(part, software.python, CUDA_MAJOR, script, node.places),)


def _backend(assignment: Assignment, node: Node) -> tuple[Step, ...]:
    if assignment.backend is None:
        return ()
    software, work = assignment.software, node.places.state / "build"
    gpu, folder = assignment.hardware.gpu_name, work / "wheels"
    recipes = installers.wheels(software, gpu, CUDA_MAJOR, work, folder)
    bring = None
    if recipes and node.shelf is not None:
        bring = Wheels(software, gpu, node.places, node.shelf, recipes, folder).bring
    alone = len(assignment.members) == 1
    step = LibraryStep(
        assignment.backend,
        software,
        node.places,
        node.boot_id,
        alone,
        bring,
        node.run,
        needs=("software", *(step.name for step in _software(assignment, node)[1:])),
    )
    return (step,)


def _weights(assignment: Assignment, node: Node, needs: tuple[str, ...]) -> Step:
    wanted, ledger = assignment.weights, node.places.state / "weights.json"
    if wanted.fetch == "prefix" and node.list_objects is not None:
        listing = node.places.state / "weights-list.json"
        return PrefixWeightsStep(wanted, node.read, node.list_objects, ledger, listing, needs)
    return WeightsStep(wanted, node.read, ledger, needs=needs)


def _role(assignment: Assignment, node: Node, needs: tuple[str, ...]) -> RoleStep:
    return RoleStep(
        assignment,
        node.places,
        node.interface,
        node.parameters,
        node.systemd,
        needs=("hardware", "software", "weights", *needs),
    )
