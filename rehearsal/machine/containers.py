"""Instances on this machine: what EC2 does with hardware, done with namespaces."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from rehearsal.machine import cgroups, host, instance, network, processes, supervisors
from rehearsal.machine.images import Images
from rehearsal.machine.instance import Folder, Progress, Spec
from rehearsal.machine.interface import (
    ImageState,
    InstanceState,
    Launch,
    MachineError,
    MetadataSource,
    Rule,
)
from rehearsal.machine.network import Vpc
from rehearsal.machine.services import VpcServices
from rehearsal.paths import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from wsgiref.types import WSGIApplication

log = logging.getLogger(__name__)

COPY_POLL_S = 0.1
END_S = 20.0
"""For a supervisor that was told to end."""
REMOVAL_PAUSES_S = (0.5, 2.0, 5.0, 15.0)
"""Between tries to take an instance away: a process or a cgroup may need its time to go."""


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
        index: WSGIApplication | None = None,
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
            index: the package index, served in every VPC; None: none is.

        Raises:
            MachineError: instances are there but this machine can't serve them (any more).
        """
        self._home = home
        self._image = image
        self._images = Images(home)
        self._binds = tuple((str(source.resolve()), target) for source, target in binds)
        self._metadata = metadata
        self._app = app
        self._on_change = on_change
        self._index = index
        self._rules: dict[str, tuple[Rule, ...]] = {}
        self._services: dict[str, VpcServices] = {}
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.RLock()
        self._watcher = supervisors.Watcher(home, self._changed)
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
            layers = self._images.layers(launch.image_id)
            folder.create(Spec(launch, str(self._image), self._binds, layers))
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
        self._in_background(self._remove_folder, instance_id)

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

    def make_image(self, image_id: str, instance_id: str) -> None:
        """Begin to copy an instance's disk; `image_state` tells when it is done.

        Raises:
            MachineError: there is no such instance.
        """
        self._images.begin(image_id, instance_id)
        self._in_background(self._copy, image_id)

    def image_state(self, image_id: str) -> ImageState:
        """How far an image is."""
        return self._images.state(image_id)

    def forget_image(self, image_id: str) -> None:
        """Remove an image; what instances use of it stays until their end."""
        with self._lock:
            self._images.forget(image_id)

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
            child = supervisors.spawn(folder, lock)
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
                vpc.netns,
                key,
                lambda address: self._metadata(vpc.vpc_id, address),
                self._app,
                self._index,
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
                    self._in_background(self._remove_folder, folder.instance_id)
            for image_id in self._images.pending():
                self._in_background(self._copy, image_id)

    def _copy(self, image_id: str) -> None:
        try:
            self._images.copy(image_id)
        finally:
            self._on_change(image_id)

    def _remove_folder(self, instance_id: str) -> None:
        folder = self._folder(instance_id)
        spec = folder.spec()
        if spec is None:
            folder.remove()
            return
        pid = folder.supervisor_pid()
        if pid is not None:
            processes.end(pid, signal.SIGUSR2, END_S)  # its instance dies with it
        while instance_id in self._images.pending().values():
            time.sleep(COPY_POLL_S)  # an image of it outlives it
        for pause in (*REMOVAL_PAUSES_S, None):
            try:
                with self._lock:
                    self._take_away(folder, spec.launch)
                break
            except (MachineError, OSError):
                if pause is None:
                    raise
                log.exception("%s is not away yet", instance_id)
                time.sleep(pause)
        self._on_change(folder.instance_id)

    def _take_away(self, folder: Folder, launch: Launch) -> None:
        """Remove all that a launch made, in whatever state it is."""
        vpc = Vpc(self._home, launch.vpc_id, launch.vpc_cidr)
        cgroups.kill(self._home.tag, launch.instance_id)
        cgroups.remove(self._home.tag, launch.instance_id)
        network.detach(vpc, launch)
        folder.remove()
        self._images.purge()
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
                processes.send(pid, number)

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

    def _in_background(self, action: Callable[[str], None], id_: str) -> None:
        def act() -> None:
            try:
                action(id_)
            except Exception:
                # What is condemned or pending stays so: the next account tries again.
                log.exception("%s of %s", action.__name__, id_)

        threading.Thread(target=act, name=f"{action.__name__} {id_}", daemon=True).start()
