"""The processes that run for the engine: started, read, and ended together."""

from __future__ import annotations

import queue
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Literal

Stream = Literal["stdout", "stderr"]


class Children:
    """Processes of this host, each in a session of its own.

    In a session of its own, because ^C at the terminal goes to the whole foreground group: the
    engine must end the program when it has cancelled, or Python's KeyboardInterrupt traceback
    stands between the engine's messages.
    """

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.stopping = threading.Event()

    @contextmanager
    def run(
        self, command: Sequence[str], environment: Mapping[str, str], folder: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start a process and know it until the block ends; what still runs then is ended.

        Args:
            command: program and arguments.
            environment: all of its environment.
            folder: where it runs.
        """
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        with self._lock:
            self._running.add(process)
            if self.stopping.is_set():
                process.terminate()
        try:
            yield process
        finally:
            with self._lock:
                self._running.discard(process)
            if process.poll() is None:
                process.terminate()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    def stop(self) -> None:
        """End every process, and each one that may still be started."""
        with self._lock:
            self.stopping.set()
            for process in self._running:
                process.terminate()


def lines(process: subprocess.Popen[bytes]) -> Iterator[tuple[Stream, bytes]]:
    """Yield what a process writes, line by line and from both streams, until it closes them."""
    written: queue.SimpleQueue[tuple[Stream, bytes]] = queue.SimpleQueue()

    def pump(pipe: IO[bytes], name: Stream) -> None:
        for line in pipe:
            written.put((name, line))
        written.put((name, b""))

    streams: list[tuple[IO[bytes] | None, Stream]] = [
        (process.stdout, "stdout"),
        (process.stderr, "stderr"),
    ]
    still_open = 0
    for pipe, name in streams:
        if pipe is not None:
            still_open += 1
            threading.Thread(target=pump, args=(pipe, name), daemon=True).start()
    while still_open:
        name, line = written.get()
        if line:
            yield name, line
        else:
            still_open -= 1
