"""Instances on this machine: what EC2 does with hardware, done with namespaces."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from rehearsal.machine import cgroups, host, instance, network
from rehearsal.machine.instance import CONTROL_SIGNALS, Folder, Progress, Spec
from rehearsal.machine.interface import (
    InstanceState,
    Launch,
    MachineError,
    MetadataSource,
    Rule,
)
from rehearsal.machine.network import Vpc
from rehearsal.machine.services import VpcServices
from rehearsal.paths import CHECKOUT, Home

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from wsgiref.types import WSGIApplication

log = logging.getLogger(__name__)


class Containers:
    """Implements `rehearsal.machine.interface.Machine`.

    Instances and VPC namespaces live on without this object; a new one with the same home finds
    them, serves them and finishes terminations that were begun.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - agreed with the account
        self,
        home: Home,
        image: Path,
        binds: Sequence[tuple[Path, str]],
        metadata: MetadataSource,
        app: WSGIApplication,
        on_change: Callable[[str], None],
    ) -> None:
        """Take charge of the instances of a rehearsal.

        Args:
            home: of the rehearsal.
            image: root of the file system that instances boot from (never written).
            binds: folders of this machine that instances see read-only, and where.
            metadata: answers for the metadata service.
            app: the account, served in every VPC.
            on_change: called with an instance's id, in a thread of the machine, after its state
                may have changed.

        Raises:
            MachineError: instances are there but this machine can't serve them (any more).
        """
        self._home = home
        self._image = image
        self._binds = tuple((str(source.resolve()), target) for source, target in binds)
        self._metadata = metadata
        self._app = app
        self._on_change = on_change
        self._rules: dict[str, tuple[Rule, ...]] = {}
        self._services: dict[str, VpcServices] = {}
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.RLock()
        self._watcher = _Watcher(home, self._changed)
        self._adopt()

    def close(self) -> None:
        """Stop serving and watching. Instances run on."""
        self._watcher.close()
        with self._lock:
            for services in self._services.values():
                services.close()
            self._services.clear()

    def launch(self, launch: Launch) -> None:
        """Boot a new instance.

        Raises:
            MachineError: this machine can't (not root, a program missing, a colliding route); the
                message says what to do. Nothing of the instance is left.
        """
        host.check()
        folder = self._folder(launch.instance_id)
        with self._lock:
            if folder.spec() is not None:
                raise MachineError(f"The instance {launch.instance_id} is here already.")
            folder.create(Spec(launch, str(self._image), self._binds))
            try:
                self._boot(folder, launch)
            except BaseException:
                self._take_away(folder, launch)
                raise

    def start(self, instance_id: str) -> None:
        """Boot a stopped instance again; one that runs is left alone.

        Raises:
            MachineError: see `launch`; or no such instance.
        """
        host.check()
        folder = self._folder(instance_id)
        with self._lock:
            self._boot(folder, self._spec(folder).launch)

    def stop(self, instance_id: str, *, force: bool) -> None:
        """Power off. Unknown or stopped instances are no error."""
        self._signal(instance_id, signal.SIGUSR2 if force else signal.SIGTERM)

    def reboot(self, instance_id: str) -> None:
        """Restart the instance's init; one that does not go down in 30 s is killed first."""
        self._signal(instance_id, signal.SIGUSR1)

    def terminate(self, instance_id: str) -> None:
        """Kill an instance and remove all it had here; `state` is `terminated` once it is gone."""
        folder = self._folder(instance_id)
        if folder.spec() is None:
            return
        folder.condemn()
        self._signal(instance_id, signal.SIGUSR2)
        self._in_background(self._remove, folder)

    def state(self, instance_id: str) -> InstanceState:
        """Return how far an instance is."""
        folder = self._folder(instance_id)
        if folder.spec() is None:
            return "terminated"
        if folder.condemned:
            return "running"
        if not folder.kept():
            return "stopped"
        return "pending" if folder.progress().phase == "booting" else "running"

    def console(self, instance_id: str) -> bytes:
        """Return what an instance wrote to its console, of all boots; the end if it is long."""
        path = self._folder(instance_id).console
        return path.read_bytes() if path.exists() else b""

    def firewall(self, vpc_id: str, rules: Sequence[Rule]) -> None:
        """Replace what is allowed in a VPC; kept until its first instance, if it has none yet.

        Raises:
            MachineError: the rules could not be loaded; the old ones are in force.
        """
        with self._lock:
            self._rules[vpc_id] = tuple(rules)
            for vpc in self._vpcs():
                if vpc.vpc_id == vpc_id and vpc.whole:
                    network.allow(vpc, rules)

    def _boot(self, folder: Folder, launch: Launch) -> None:
        lock = folder.lock()
        if lock is None:
            return
        try:
            self._connect(Vpc(self._home, launch.vpc_id, launch.vpc_cidr), launch)
            # What an earlier life ended with must not be taken for news of this one.
            folder.record(Progress("booting", 0, folder.progress().boots))
            child = _spawn_supervisor(folder, lock)
        finally:
            os.close(lock)
        self._children[child.pid] = child
        self._watcher.watch(child.pid, folder.instance_id)

    def _connect(self, vpc: Vpc, launch: Launch) -> None:
        if network.ensure(vpc):
            network.allow(vpc, self._rules.get(vpc.vpc_id, ()))
        network.attach(vpc, launch)
        network.serve(vpc, self._launches(vpc.vpc_id))
        self._serve(vpc)

    def _serve(self, vpc: Vpc) -> None:
        if vpc.vpc_id not in self._services:
            key = vpc.folder / "metadata.key"
            self._services[vpc.vpc_id] = VpcServices(
                vpc.netns, key, lambda address: self._metadata(vpc.vpc_id, address), self._app
            )

    def _adopt(self) -> None:
        with self._lock:
            for vpc in self._vpcs():
                if vpc.whole:
                    network.serve(vpc, self._launches(vpc.vpc_id))
                    self._serve(vpc)
            for folder in instance.folders(self._home):
                pid = folder.supervisor_pid()
                if pid is not None:
                    self._watcher.watch(pid, folder.instance_id)
                if folder.condemned or folder.spec() is None:
                    self._in_background(self._remove, folder)

    def _remove(self, folder: Folder) -> None:
        spec = folder.spec()
        if spec is None:
            folder.remove()
            return
        pid = folder.supervisor_pid()
        if pid is not None:
            os.kill(pid, signal.SIGUSR2)
            _wait_for_end(pid)
        with self._lock:
            self._take_away(folder, spec.launch)
        self._on_change(folder.instance_id)

    def _take_away(self, folder: Folder, launch: Launch) -> None:
        """Remove all that a launch made, in whatever state it is."""
        vpc = Vpc(self._home, launch.vpc_id, launch.vpc_cidr)
        cgroups.kill(self._home.tag, launch.instance_id)
        cgroups.remove(self._home.tag, launch.instance_id)
        network.detach(vpc, launch)
        folder.remove()
        others = self._launches(vpc.vpc_id)
        if others:
            network.serve(vpc, others)
            return
        services = self._services.pop(vpc.vpc_id, None)
        if services is not None:
            services.close()
        network.remove(vpc)

    def _changed(self, instance_id: str) -> None:
        for pid, child in list(self._children.items()):
            if child.poll() is not None:
                self._children.pop(pid, None)
        self._on_change(instance_id)

    def _signal(self, instance_id: str, number: signal.Signals) -> None:
        with self._lock:  # not while it gets another supervisor
            pid = self._folder(instance_id).supervisor_pid()
            if pid is not None:
                os.kill(pid, number)

    def _spec(self, folder: Folder) -> Spec:
        spec = folder.spec()
        if spec is None:
            raise MachineError(f"There is no instance {folder.instance_id} on this machine.")
        return spec

    def _folder(self, instance_id: str) -> Folder:
        return Folder(self._home.instances / instance_id)

    def _launches(self, vpc_id: str) -> list[Launch]:
        specs = (folder.spec() for folder in instance.folders(self._home))
        return [spec.launch for spec in specs if spec is not None and spec.launch.vpc_id == vpc_id]

    def _vpcs(self) -> list[Vpc]:
        specs = (folder.spec() for folder in instance.folders(self._home))
        found = {(spec.launch.vpc_id, spec.launch.vpc_cidr) for spec in specs if spec is not None}
        return [Vpc(self._home, vpc_id, cidr) for vpc_id, cidr in sorted(found)]

    def _in_background(self, action: Callable[[Folder], None], folder: Folder) -> None:
        def act() -> None:
            try:
                action(folder)
            except Exception:
                # It stays condemned, so the next account tries again.
                log.exception("removing %s", folder.instance_id)

        threading.Thread(target=act, name=f"remove {folder.instance_id}", daemon=True).start()


class _Watcher:
    """Calls back when a supervisor writes or ends; sleeps in between."""

    def __init__(self, home: Home, changed: Callable[[str], None]) -> None:
        home.instances.mkdir(parents=True, exist_ok=True)
        path = home.instances / instance.EVENTS
        if not path.exists():
            os.mkfifo(path, 0o600)
        # Read and write: with its own writer it never meets the end of the file.
        self._news = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake, self._waker = os.pipe()
        self._changed = changed
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._news, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="instances", daemon=True)
        self._thread.start()

    def watch(self, pid: int, instance_id: str) -> None:
        """Call back when this supervisor ends."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._changed(instance_id)
            return
        self._selector.register(descriptor, selectors.EVENT_READ, instance_id)

    def close(self) -> None:
        """End the thread; a second time does nothing."""
        if not self._thread.is_alive():
            return
        os.write(self._waker, b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        self._selector.close()
        os.close(self._waker)

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._wake:
                    return
                if key.fd == self._news:
                    for instance_id in os.read(self._news, 4096).decode().split():
                        self._tell(instance_id)
                else:
                    self._selector.unregister(key.fd)
                    os.close(key.fd)
                    self._tell(key.data)

    def _tell(self, instance_id: str) -> None:
        try:
            self._changed(instance_id)
        except Exception:
            log.exception("telling of %s", instance_id)


def _spawn_supervisor(folder: Folder, lock: int) -> subprocess.Popen[bytes]:
    # Blocked until the supervisor listens: a stop that comes at once must not end it unheard.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, CONTROL_SIGNALS)
    try:
        with folder.supervisor_log.open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "rehearsal.machine.supervisor", str(folder.path)],
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=(lock,),
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    folder.note_supervisor(child.pid)
    return child


def _wait_for_end(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        if not selector.select(timeout=20):
            os.kill(pid, signal.SIGKILL)  # its instance dies with it
            selector.select()
    os.close(descriptor)
