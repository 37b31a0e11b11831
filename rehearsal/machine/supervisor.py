"""One instance's keeper: boots it, keeps its console log, boots it again, records how it ended.

Started as `python -m rehearsal.machine.supervisor INSTANCE_FOLDER`, a session of its own that
outlives the account's process. It ends when the instance is off. Signals: SIGTERM powers off (and
kills after 30 s), SIGUSR1 reboots, SIGUSR2 kills.
"""

from __future__ import annotations

import os
import pty
import selectors
import signal
import subprocess
import sys
import time
import tty
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rehearsal.machine import cgroups, names
from rehearsal.machine.instance import CONTROL_SIGNALS, Folder, Progress, Spec

if TYPE_CHECKING:
    from collections.abc import Callable

BOOT_SCRIPT = Path(__file__).with_name("node.sh")
GRACE_S = 30.0
RESEND_S = 2.0
CONSOLE_LIMIT_BYTES = 1 << 20
POWEROFF = signal.SIGRTMIN + 4
REBOOT = signal.SIGRTMIN + 5
"""What systemd as process 1 takes for `systemctl poweroff` and `systemctl reboot`."""


class Supervisor:
    """The state of one instance's boots."""

    def __init__(self, folder: Folder, spec: Spec) -> None:
        """Prepare; nothing is booted yet."""
        self._folder = folder
        self._spec = spec
        self._tag = folder.home.tag
        self._wish: signal.Signals | None = None
        self._deadline_s = 0.0
        self._resend_s = 0.0
        self._init_pid = 0
        self._boots = folder.progress().boots
        self._wakeup, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def run(self) -> str:
        """Boot until the instance is off; return how it ended."""
        first = True
        while True:
            code = self._boot_once(first=first)
            first = False
            asked, self._wish = self._wish, None
            self._clean()
            if asked in (signal.SIGTERM, signal.SIGUSR2):
                return "stopped" if code == -signal.SIGINT else "killed"
            # The kernel tells reboot(2) of a process 1 by the signal that it seems to die of.
            if code == -signal.SIGHUP or asked == signal.SIGUSR1:
                continue
            if code == -signal.SIGINT:
                return "powered itself off"
            if self._init_pid == 0:
                return f"did not boot (exit {code}); see {self._folder.supervisor_log}"
            return f"died (exit {code})"

    def _boot_once(self, *, first: bool) -> int:
        self._boots += 1
        self._init_pid = 0
        # To EC2 an instance that restarts is `running` throughout.
        self._folder.record(Progress("booting" if first else "running", 0, self._boots))
        (self._folder.path / "boot_id").write_text(f"{uuid.uuid4()}\n")
        master, slave = pty.openpty()
        tty.setraw(slave)
        news, news_writer = os.pipe()
        process = self._spawn(os.ttyname(slave), news_writer)
        os.close(news_writer)
        try:
            return self._watch(process, master, news)
        finally:
            for descriptor in (master, slave, news):
                os.close(descriptor)

    def _spawn(self, console: str, news: int) -> subprocess.Popen[bytes]:
        launch = self._spec.launch
        branches = cgroups.create(self._tag, launch.instance_id, launch.cpus, launch.memory_mib)
        command = [
            # An instance never outlives its keeper.
            *("setpriv", "--pdeathsig", "KILL"),
            *("bash", str(BOOT_SCRIPT), "enter"),
            names.instance_netns(self._tag, launch.instance_id),
            *(str(news), console, self._spec.image),
            ":".join(str(branch) for branch in branches),
            *(word for bind in self._spec.binds for word in bind),
        ]

        return subprocess.Popen(
            command, cwd=self._folder.path, stdin=subprocess.DEVNULL, pass_fds=(news,)
        )

    def _watch(self, process: subprocess.Popen[bytes], master: int, news: int) -> int:
        """Serve console, signals and news until the boot is over; return its exit code."""
        ended = os.pidfd_open(process.pid)
        handlers: dict[int, Callable[[], None]] = {
            master: lambda: self._copy_console(master),
            news: lambda: self._read_news(news, selector),
            self._wakeup: lambda: self._take_signals(os.read(self._wakeup, 64)),
        }
        with selectors.DefaultSelector() as selector:
            for descriptor in (*handlers, ended):
                selector.register(descriptor, selectors.EVENT_READ)
            over = False
            while not over:
                for key, _ in selector.select(self._pursue(process)):
                    if key.fd == ended:
                        over = True
                    else:
                        handlers[key.fd]()
        code = process.wait()
        # What was written last is still in the pty.
        os.set_blocking(master, False)
        self._copy_console(master)
        os.close(ended)
        return code

    def _pursue(self, process: subprocess.Popen[bytes]) -> float | None:
        """Do what was asked for; return the seconds until it has to be done again."""
        if self._wish is None:
            return None
        now = time.monotonic()
        if self._wish == signal.SIGUSR2 or now > self._deadline_s:
            process.kill()
            return RESEND_S
        if self._init_pid and now >= self._resend_s:
            # A systemd that has just begun ignores it, so it is said until it is heard.
            with suppress(ProcessLookupError):
                os.kill(self._init_pid, REBOOT if self._wish == signal.SIGUSR1 else POWEROFF)
            self._resend_s = now + RESEND_S
        return min(RESEND_S, max(0.0, self._deadline_s - now) + 0.01)

    def _take_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number in CONTROL_SIGNALS:
                self._wish = signal.Signals(number)
                self._deadline_s = time.monotonic() + GRACE_S
                self._resend_s = 0.0

    def _read_news(self, news: int, selector: selectors.BaseSelector) -> None:
        selector.unregister(news)
        said = os.read(news, 64).strip()
        if said:
            self._init_pid = int(said)
            self._folder.record(Progress("running", self._init_pid, self._boots))

    def _copy_console(self, master: int) -> None:
        try:
            data = os.read(master, 65536)
        except OSError:
            return
        path = self._folder.console
        if path.exists() and path.stat().st_size > CONSOLE_LIMIT_BYTES:
            path.write_bytes(path.read_bytes()[-CONSOLE_LIMIT_BYTES // 2 :])
        with path.open("ab") as log:
            log.write(data)

    def _clean(self) -> None:
        instance_id = self._spec.launch.instance_id
        cgroups.kill(self._tag, instance_id)
        cgroups.remove(self._tag, instance_id)

    def finish(self, end: str) -> None:
        """Record that the instance is off."""
        self._folder.record(Progress("ended", 0, self._boots, end))


def main(argv: list[str]) -> int:
    """Keep the instance whose folder is given until it is off."""
    folder = Folder(Path(argv[0]))
    spec = folder.spec()
    if spec is None:
        print(f"{folder.path} is no instance's folder", file=sys.stderr)
        return 2
    for number in CONTROL_SIGNALS:
        signal.signal(number, lambda *_: None)
    supervisor = Supervisor(folder, spec)
    # They were blocked at birth, so that none could end this process before it listened.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, CONTROL_SIGNALS)
    try:
        end = supervisor.run()
    except Exception as error:
        supervisor.finish(f"the supervisor failed: {error}")
        raise
    supervisor.finish(end)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
