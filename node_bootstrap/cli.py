"""`python -m node_bootstrap agent | status | restart | …`: entry point of the archive."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from node_bootstrap import durable
from node_bootstrap.agent.identity import config, identity
from node_bootstrap.agent.protocol import RestartOrder
from node_bootstrap.agent.reach import ReachOrder, reach
from node_bootstrap.assignment import Assignment
from node_bootstrap.gateway import peers
from node_bootstrap.jsondata import ContractError
from node_bootstrap.places import Places
from node_bootstrap.status import GroupReport, Status

if TYPE_CHECKING:
    from collections.abc import Sequence


TRANSFER_SECONDS = 900.0
"""For so long a new measurement is waited for: the group stops, and all its nodes have to meet."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    parser = argparse.ArgumentParser(prog="moe-node", description="One node of a MoE deployment.")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the node's files lie")
    commands = parser.add_subparsers(dest="command", required=True)
    agent = commands.add_parser("agent", help="keep this node as its assignment says")
    agent.add_argument(
        "--supervisor",
        choices=["systemd", "process"],
        default="systemd",
        help="what runs the role: moe-role.service, or a plain process where there is no systemd",
    )
    commands.add_parser("status", help="print how this node is")
    restart = commands.add_parser("restart", help="have this node's whole group start anew")
    restart.add_argument("cause", nargs="?", default="a person asked for it", help="for the status")
    gate = commands.add_parser(
        "gate", help="look at the hardware as the gate does; nothing is done"
    )
    gate.add_argument(
        "--dcgm", action="store_true", help="with the planned diagnosis of DCGM: not beside a vLLM"
    )
    commands.add_parser("transfer", help="measure between this group's nodes; restarts the group")
    reach = commands.add_parser("reach", help="try TCP ports of other nodes from this one")
    reach.add_argument("targets", nargs="+", metavar="ADDRESS:PORT")
    options = parser.parse_args(argv)
    places = Places(options.root)
    if options.command == "status":
        return _status(places)
    if options.command == "restart":
        return _restart(places, options.cause)
    if options.command == "gate":
        return _gate(places, dcgm=options.dcgm)
    if options.command == "transfer":
        return _transfer(places)
    if options.command == "reach":
        return _reach(options.targets)
    return _agent(places, options.supervisor)


def _status(places: Places) -> int:
    status = durable.load(places.state / "status.json", Status)
    if status is None:
        print("The agent has not reported yet: look at `journalctl -u moe-node`.", file=sys.stderr)
        return 1
    age = time.time() - status.updated_at
    print(f"{status.node} ({status.instance_id}): {status.phase}, {age:.0f} s ago")
    for step in status.steps:
        print(f"  {step.name:10} {step.outcome:9} {step.seconds:8.2f} s  {step.detail}")
    running = "runs" if status.running else "does not run"
    print(f"  vLLM {running}, revision {status.revision or '-'}, generation {status.generation}")
    if status.group is not None:
        print(f"  group: {status.group.phase}, generation {status.group.generation}")
        for member in status.group.members:
            print(f"    {member.name}: {member.phase}, generation {member.generation}")
    if status.fault is not None:
        print(f"  last fault: {status.fault.what}")
    return 0


def _restart(places: Places, cause: str) -> int:
    """Tell the primary of this node's group that its present life must end."""
    found = _primary(places)
    if found is None:
        return 1
    try:
        now = _end_life(found, cause)
    except peers.PeerError as error:
        print(f"the primary took no order: {error}", file=sys.stderr)
        return 1
    print(f"{found.group}: generation {now.generation} ends")
    return 0


def _gate(places: Places, *, dcgm: bool) -> int:
    """Print all findings; 1 where the node would not be let serve."""
    # Imported here so that `status` answers at once.
    from node_bootstrap.steps import hardware  # noqa: PLC0415
    from node_bootstrap.steps.base import StepError  # noqa: PLC0415

    told = durable.load(places.state / "assignment.json", Assignment)
    if told is None:
        print("this node's agent has not read its assignment yet", file=sys.stderr)
        return 1
    wanted = told.hardware if dcgm else replace(told.hardware, dcgm_level=0)
    try:
        wrong = hardware.faults(wanted, hardware.look(wanted.private_ip))
    except StepError as error:
        print(error, file=sys.stderr)
        return 1
    for fault in wrong:
        print(fault)
    if not wanted.gpu_count:
        print("no GPU is planned on this node")
        return int(bool(wrong))
    boot_id = identity(places).boot_id
    report = hardware.HardwareStep(wanted, boot_id=boot_id, record=places.gate).judged()
    for finding in report.findings:
        print(f"{finding.action:8} {finding.rule:16} {finding.device} {finding.what}")
    print(report.action)
    return int(bool(wrong) or report.action not in ("OK", "MONITOR"))


def _transfer(places: Places) -> int:
    """Have the group measure again, and print what came of it; 1 where it is not as planned."""
    found = _primary(places)
    if found is None:
        return 1
    if not found.measures:
        print(f"{found.group} measures no transfer: checks.transfer", file=sys.stderr)
        return 1
    try:
        asked_at = time.time()
        _end_life(found, "a measured transfer was asked for", measure=True)
        measured = None
        while measured is None or measured.at <= asked_at:
            if time.time() - asked_at > TRANSFER_SECONDS:
                print(f"nothing was measured in {TRANSFER_SECONDS:.0f} s", file=sys.stderr)
                return 1
            time.sleep(1)
            measured = peers.group_of(*found.agent).transfer
    except peers.PeerError as error:
        print(f"the primary does not answer: {error}", file=sys.stderr)
        return 1
    for item in measured.items:
        floor = "not judged" if item.floor is None else f"floor {item.floor:.3g}"
        print(f"{item.name:12} {item.gb_per_second:9.3f} GB/s  ({floor})")
    for fault in measured.faults:
        print(fault)
    return int(bool(measured.faults))


@dataclass(frozen=True)
class _Group:
    """This node's group. agent: address, port and token of its primary's."""

    group: str
    agent: tuple[str, int, str]
    measures: bool


def _primary(places: Places) -> _Group | None:
    """Who holds this node's group; None, said aloud, where nobody does."""
    told = durable.load(places.state / "assignment.json", Assignment)
    parameters = places.state / "parameters.json"
    if told is None or told.role == "gateway" or not parameters.exists():
        print("this node is of no group, or its agent has not read it yet", file=sys.stderr)
        return None
    token = json.loads(parameters.read_text()).get(told.agent_token_parameter, "")
    agent = (told.primary.address, told.agent_port, token)
    return _Group(told.group, agent, told.transfer is not None)


def _end_life(found: _Group, cause: str, *, measure: bool = False) -> GroupReport:
    """End the group's present life; the group as it was. PeerError where it wasn't taken."""
    now = peers.group_of(*found.agent)
    order = RestartOrder(now.revision, now.generation, cause, measure)
    peers.order_restart(*found.agent, order)
    return now


def _reach(targets: Sequence[str]) -> int:
    unreached = reach(ReachOrder(tuple(targets))).unreached
    for target in targets:
        print(f"{target}: {unreached.get(target) or 'reached'}")
    return 1 if unreached else 0


def _agent(places: Places, supervisor: str) -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    # Imported here so that `status` answers at once.
    from node_bootstrap.agent.main import Agent, install_signals  # noqa: PLC0415
    from node_bootstrap.agent.role import SystemdRole  # noqa: PLC0415
    from node_bootstrap.agent.role_process import ProcessRole  # noqa: PLC0415

    try:
        node, me = config(places), identity(places)
    except FileNotFoundError:
        print(f"{places.config} is missing: user data has not run on this node.", file=sys.stderr)
        return 1
    except (ContractError, OSError) as error:
        print(f"the agent can't start: {error}", file=sys.stderr)
        return 1
    record = places.state / "role.json"
    systemd = supervisor == "systemd"
    role = SystemdRole(record) if systemd else ProcessRole(record, places)
    agent = Agent(node, me, places, role, archive_sha256(places), systemd=systemd)
    install_signals(agent.end)
    return agent.run()


def archive_sha256(places: Places) -> str:
    """The archive that this process runs from; empty when it runs from no archive."""
    program = Path(os.path.realpath(sys.argv[0])).parent
    archives = places.current.parent / "archives"
    return program.name if program.parent == Path(os.path.realpath(archives)) else ""


if __name__ == "__main__":
    sys.exit(main())
