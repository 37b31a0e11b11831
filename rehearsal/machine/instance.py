"""The folder of one instance: what it is, its disk, how far it got. Survives every process."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import time
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from rehearsal.machine.interface import Launch
from rehearsal.paths import Home

if TYPE_CHECKING:
    from pathlib import Path

LOOKS, LOOK_S = 20, 0.01
"""Somebody who looks whether an instance is kept has its lock for a moment."""
CONTROL_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What a supervisor takes for power off, reboot, kill."""
Phase = Literal["booting", "running", "ended"]
EVENTS = "events"
"""A FIFO in the `instances` folder: supervisors write the id of an instance that changed."""


@dataclass(frozen=True)
class Spec:
    """What an instance boots from and as."""

    launch: Launch
    image: str
    binds: tuple[tuple[str, str], ...]
    layers: tuple[str, ...] = ()
    """Of an image that was made from an instance, above `image`; the topmost first."""


@dataclass(frozen=True)
class Progress:
    """What a supervisor last wrote about its instance.

    init_pid: process 1 of the instance as this machine counts, 0 while there is none.
    boots: how often it was booted. end: how the last boot ended, for a person.
    """

    phase: Phase
    init_pid: int = 0
    boots: int = 0
    end: str = ""


@dataclass(frozen=True)
class Folder:
    """Paths and records of one instance."""

    path: Path

    @property
    def instance_id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def home(self) -> Home:
        """The rehearsal to which it belongs."""
        return Home(self.path.parent.parent)

    @property
    def console(self) -> Path:
        """What the instance wrote to its console, all boots."""
        return self.path / "console.log"

    @property
    def supervisor_log(self) -> Path:
        """Where the supervisor's own faults end up."""
        return self.path / "supervisor.log"

    @property
    def events(self) -> Path:
        """The FIFO of all instances."""
        return self.path.parent / EVENTS

    @property
    def condemned(self) -> bool:
        """Whether it is to be terminated; its removal goes on when the account starts anew."""
        return (self.path / "terminate").exists()

    def condemn(self) -> None:
        """Note that it is to be terminated."""
        (self.path / "terminate").touch()

    def create(self, spec: Spec) -> None:
        """Make the folder with an empty disk."""
        for name in ("base", "disk/upper", "disk/work", "root", "sys", "hw/hypervisor"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        (self.path / "empty").touch()
        for number in range(len(spec.layers)):
            (self.path / f"layer{number}").mkdir(exist_ok=True)
        (self.path / "layers").write_text("".join(f"{layer}\n" for layer in spec.layers))
        # cloud-init takes the machine for an EC2 instance if this begins with ec2.
        stable = uuid.uuid5(uuid.NAMESPACE_OID, spec.launch.instance_id).hex
        known = f"ec2{stable[3:8]}-{stable[8:12]}-{stable[12:16]}-{stable[16:20]}-{stable[20:]}"
        (self.path / "hw/hypervisor/uuid").write_text(known + "\n")
        _replace(self.path / "spec.json", json.dumps(asdict(spec)))

    def spec(self) -> Spec | None:
        """Return what was launched; None where the folder is not (or not wholly) there."""
        try:
            data = json.loads((self.path / "spec.json").read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        binds = tuple((source, target) for source, target in data["binds"])
        layers = tuple(data.get("layers", ()))
        return Spec(Launch(**data["launch"]), data["image"], binds, layers)

    def progress(self) -> Progress:
        """Return what the supervisor last wrote."""
        try:
            return Progress(**json.loads((self.path / "progress.json").read_text()))
        except FileNotFoundError:
            return Progress("booting")

    def record(self, progress: Progress) -> None:
        """Write progress, and tell whoever watches."""
        _replace(self.path / "progress.json", json.dumps(asdict(progress)))
        try:
            pipe = os.open(self.events, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return  # nobody watches now; the next account reads the record
        with os.fdopen(pipe, "wb", buffering=0) as stream:
            try:
                stream.write(self.instance_id.encode() + b"\n")
            except (BlockingIOError, BrokenPipeError):
                return  # full of unread news, or nobody reads any more: both look at the record

    def lock(self) -> int | None:
        """Take the instance; the open descriptor holds it. None while a supervisor has it.

        The descriptor goes to the supervisor with its birth, so there is no moment at which an
        instance with a supervisor looks as if it had none.
        """
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for _ in range(LOOKS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(LOOK_S)
        else:
            os.close(descriptor)
            return None
        (self.path / "supervisor.pid").unlink(missing_ok=True)  # that of an earlier life
        return descriptor

    def kept(self) -> bool:
        """Whether a supervisor has the instance, or is about to."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            # Shared: two that look at once must not take each other for a supervisor.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def supervisor_pid(self) -> int | None:
        """Return the supervisor's process id while it lives."""
        if not self.kept():
            return None
        try:
            return int((self.path / "supervisor.pid").read_text())
        except FileNotFoundError:
            return None

    def note_supervisor(self, pid: int) -> None:
        """Write the supervisor's process id."""
        _replace(self.path / "supervisor.pid", str(pid))

    def remove(self) -> None:
        """Remove everything, the record of what it was first."""
        (self.path / "spec.json").unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)


def folders(home: Home) -> list[Folder]:
    """Return the instances that a rehearsal has, in the order of their ids."""
    if not home.instances.is_dir():
        return []
    return [Folder(path) for path in sorted(home.instances.iterdir()) if path.is_dir()]


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.write_text(text)
    fresh.replace(path)
