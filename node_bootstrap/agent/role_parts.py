"""vLLM's own processes behind the role's main one: none of them may end while the others go on.

vLLM goes on without its data-parallel coordinator and says nothing; an idle rank that ought to be
woken through it is not. So the death of any of them is taken for the death of the role.
"""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path

TITLE = b"VLLM::"
"""How vLLM's processes call themselves (`set_process_title`)."""


class Parts:
    """The named processes of one control group that were seen alive, watched by pidfd."""

    def __init__(self, cgroups: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> None:
        """Nothing is watched yet."""
        self._cgroups, self._proc = cgroups, proc
        self._watched: dict[int, tuple[str, int]] = {}

    def look(self, control_group: str) -> None:
        """Watch the named processes that have joined a control group (`/system.slice/…`)."""
        try:
            pids = (self._cgroups / control_group.lstrip("/") / "cgroup.procs").read_text().split()
        except OSError:
            return
        for pid in map(int, pids):
            if pid not in self._watched and (title := self._title(pid)):
                with contextlib.suppress(ProcessLookupError):
                    self._watched[pid] = (title, os.pidfd_open(pid))

    def ended(self) -> str:
        """Name of a watched process that has ended; empty while all live."""
        fds = {fd: title for title, fd in self._watched.values()}
        # A pidfd becomes readable when its process ends.
        readable = select.select(list(fds), [], [], 0)[0] if fds else []
        return fds[readable[0]] if readable else ""

    def forget(self) -> None:
        """Watch nothing any more."""
        for _, fd in self._watched.values():
            os.close(fd)
        self._watched.clear()

    def _title(self, pid: int) -> str:
        with contextlib.suppress(OSError):
            line = (self._proc / str(pid) / "cmdline").read_bytes()
            if line.startswith(TITLE):
                return line.split(b"\0")[0].decode(errors="replace").strip()
        return ""
