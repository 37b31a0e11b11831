"""What a rehearsal has on this machine, found by its tag; and taking all of it away."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rehearsal.machine import cgroups, host, names, netns
from rehearsal.machine.interface import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator


def leftovers(tag: str) -> list[str]:
    """List what is there of a rehearsal, each with its kind: empty when nothing is.

    Looks at processes (supervisors, resolvers, all in an instance), network namespaces (their
    nftables and bridges are in them), links and routes of this machine's network, control groups
    and mounts.
    """
    found = [f"process {pid}: {what}" for pid, what in _processes(tag)]
    found += [f"network namespace {name}" for name in netns.listing(names.prefix(tag))]
    found += [f"link {name}" for name in _links(tag)]
    found += [f"route {route}" for route in _routes(tag)]
    found += [f"cgroup {path}" for path in _cgroups(tag)]
    found += [f"mount {point}" for point in _mounts(tag)]
    return found


def sweep(tag: str) -> None:
    """End and remove everything that `leftovers` lists. The rehearsal's folder is not touched.

    Raises:
        MachineError: something stays; the message lists it.
    """
    _kill(tag)
    for name in _links(tag):
        with contextlib.suppress(MachineError):  # its other end's namespace may go just now
            netns.ip([f"link delete {name}"])
    for name in netns.listing(names.prefix(tag)):
        netns.delete(name)
    if _cgroups(tag):
        cgroups.remove(tag)
    # A link dies with its namespace, but not at once.
    deadline = time.monotonic() + 30
    while (left := leftovers(tag)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if left:
        raise MachineError("These could not be removed:\n- " + "\n- ".join(left))


def _kill(tag: str) -> None:
    for _ in range(100):
        running = _processes(tag)
        if not running:
            return
        for pid, _ in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _processes(tag: str) -> list[tuple[int, str]]:
    spaces = _netns_inodes(tag)
    found: list[tuple[int, str]] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        # A process may end while it is looked at; one that has ended has no command line.
        with contextlib.suppress(OSError):
            arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            group = (folder / "cgroup").read_text()
            inside = (folder / "ns/net").stat().st_ino in spaces
            if inside or f"/{names.prefix(tag)}/" in group or tag in set(_tags(arguments)):
                found.append((int(folder.name), " ".join(arguments).strip()))
    return found


def _tags(arguments: list[str]) -> Iterator[str]:
    # Ours by what they are, not by a path alone: somebody may read a console log with `tail -f`.
    supervisor = "rehearsal.machine.supervisor" in arguments
    for argument in arguments:
        option, _, value = argument.partition("=")
        path = value if option == "--conf-file" else argument if supervisor else ""
        if path.startswith("/") and (tag := names.tag_of(Path(path))) is not None:
            yield tag


def _netns_inodes(tag: str) -> set[int]:
    inodes: set[int] = set()
    for name in netns.listing(names.prefix(tag)):
        with contextlib.suppress(FileNotFoundError):
            inodes.add((names.NETNS_FOLDER / name).stat().st_ino)
    return inodes


def _links(tag: str) -> list[str]:
    links = json.loads(host.run(["ip", "-j", "link", "show"]))
    return [x["ifname"] for x in links if x["ifname"].startswith(names.client_prefix(tag))]


def _routes(tag: str) -> list[str]:
    routes = json.loads(host.run(["ip", "-4", "-j", "route", "show", "table", "all"]) or "[]")
    prefix = names.client_prefix(tag)
    return [f"{x['dst']} dev {x['dev']}" for x in routes if x.get("dev", "").startswith(prefix)]


def _cgroups(tag: str) -> list[Path]:
    try:
        return cgroups.existing(tag)
    except MachineError:
        return []  # no cgroup2 is mounted, so nothing was ever made


def _mounts(tag: str) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [p for p in points if names.prefix(tag) in p or names.tag_of(Path(p)) == tag]
