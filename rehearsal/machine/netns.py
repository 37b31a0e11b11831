"""Network namespaces: making them, and doing something inside one."""

from __future__ import annotations

import ctypes
import fcntl
import os
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rehearsal.machine import host, names
from rehearsal.machine.interface import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

T = TypeVar("T")
CLONE_NEWNET = 0x40000000


def exists(name: str) -> bool:
    """Whether a namespace of this name is there."""
    return (names.NETNS_FOLDER / name).exists()


def create(name: str) -> None:
    """Make a namespace with its loopback up; one that is there stays as it is."""
    if not exists(name):
        host.run(["ip", "netns", "add", name])
        ip(["link set lo up"], netns=name)


def delete(name: str) -> None:
    """Remove a namespace and the links in it; none of this name is no error."""
    if exists(name):
        host.run(["ip", "netns", "delete", name])
    _tidy_folder()


def listing(prefix: str) -> list[str]:
    """Return the names of namespaces that begin with a prefix."""
    folder = names.NETNS_FOLDER
    return sorted(p.name for p in folder.glob(f"{prefix}*")) if folder.is_dir() else []


def ip(commands: Sequence[str], netns: str | None = None) -> None:
    """Run some commands of iproute2 in one go, in a namespace or in this machine's network.

    Raises:
        MachineError: one failed; those after it did not run.
    """
    where = ["-n", netns] if netns else []
    host.run(["ip", *where, "-batch", "-"], stdin="\n".join(commands) + "\n")


def sysctl(name: str, values: Mapping[str, int]) -> None:
    """Set settings below /proc/sys/net in a namespace; keys use slashes."""

    def write() -> None:
        for key, value in values.items():
            (Path("/proc/sys/net") / key).write_text(str(value))

    inside(name, write)


def inside(name: str, action: Callable[[], T]) -> T:
    """Call something in a namespace and return its result; sockets it makes stay there.

    A thread of its own enters the namespace and ends with the call, so that no other thread
    of this process ever sees it.

    Raises:
        MachineError: there is no such namespace. What `action` raises is passed on.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            with (names.NETNS_FOLDER / name).open("rb") as handle:
                _call("setns", handle.fileno(), CLONE_NEWNET)
            results.append(action())
        except FileNotFoundError:
            errors.append(MachineError(f"The network namespace {name} is gone."))
        except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=enter, name=f"in {name}")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def machine_wide_lock() -> Iterator[None]:
    """Hold the only lock that all rehearsals of this machine share (addresses are picked in it)."""
    # A folder that is always there, so that nothing is left behind; not that of the namespaces,
    # which `ip netns add` locks for itself.
    descriptor = os.open(names.NETNS_FOLDER.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _tidy_folder() -> None:
    # `ip netns add` makes the folder a mount point and leaves it so: with the last namespace
    # gone, put it back as it was.
    folder = names.NETNS_FOLDER
    with suppress(OSError):
        if not any(folder.iterdir()):
            _call("umount2", os.fsencode(folder), 0)


def _call(function: str, *arguments: int | bytes) -> None:
    # Python has setns and unshare from 3.12 on, umount nowhere.
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
