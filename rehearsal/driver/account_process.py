"""The account's process: started when needed, asked for its health, told what to do, stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from rehearsal.driver.errors import DriverError
from rehearsal.engine import Endpoint, read_endpoint
from rehearsal.machine.processes import send
from rehearsal.paths import Home

START_SECONDS = 90.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.1
ANSWER_SECONDS = 5.0

# loopback must not go through a proxy of the environment
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def running(home: Home) -> Endpoint | None:
    """Return the endpoint of an account that answers, or None."""
    endpoint = read_endpoint(home)
    return endpoint if endpoint is not None and _healthy(endpoint) else None


@dataclass(frozen=True)
class Hardware:
    """What the account's instances boot from.

    Attributes:
        image: the root file system.
        binds: folders of this machine, each with the path that instances see it at.
        index: folder of the wheels that instances find at their package index; None: none.
    """

    image: Path
    binds: tuple[tuple[Path, str], ...]
    index: Path | None = None

    def arguments(self) -> list[str]:
        """Return these as arguments of the account's process."""
        binds = [f"--bind={source}:{target}" for source, target in self.binds]
        index = [f"--index={self.index}"] if self.index else []
        return [f"--image={self.image}", *binds, *index]


def start(home: Home, region: str, hardware: Hardware | None = None) -> Endpoint:
    """Return the endpoint of this rehearsal's account; start its process where none answers.

    A process that can't boot what is asked for now is started anew: its state survives that.

    Args:
        home: the rehearsal.
        region: of a new account; one that was started before keeps its own.
        hardware: what instances boot from; None: what the last start named, or nothing.

    Raises:
        DriverError: it ended, or didn't answer within START_SECONDS; with the end of its log.
    """
    home.account.mkdir(parents=True, exist_ok=True, mode=0o700)
    noted = home.account / "hardware.json"
    wanted = _noted(noted) if hardware is None else hardware.arguments()
    endpoint = running(home)
    if endpoint is not None:
        if set(wanted) <= set(_arguments(endpoint.pid)):
            return endpoint
        stop(home)
    noted.write_text(json.dumps(wanted))
    return _spawn(home, ["--region", region, *wanted])


def _spawn(home: Home, arguments: list[str]) -> Endpoint:
    """Start the process and wait until it answers."""
    log = home.account / "log"
    command = [sys.executable, "-P", "-m", "rehearsal.account", "--home", str(home.root.resolve())]
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd="/",
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        endpoint = running(home)
        if endpoint is not None:
            return endpoint
        if process.poll() is not None:
            raise DriverError(
                f"The account's process ended at once (exit status {process.returncode}). "
                f"The end of {log}:\n{_tail(log)}"
            )
        time.sleep(POLL_SECONDS)
    process.terminate()
    process.wait()
    raise DriverError(
        f"The account's process did not answer within {START_SECONDS:.0f} s and was stopped. "
        f"The end of {log}:\n{_tail(log)}"
    )


def set_boot(endpoint: Endpoint, *, enabled: bool) -> None:
    """Tell the account whether instances that are launched from now on boot.

    Raises:
        DriverError: it refused, or didn't answer.
    """
    _ask(endpoint, "PUT", "boot", {"enabled": enabled})


def told(home: Home, path: str, change: object = None) -> object:
    """What is set at a control path (`faults`, `limits`), after a change where one is given.

    Raises:
        DriverError: no account runs, or it refused the change.
    """
    endpoint = running(home)
    if endpoint is None:
        raise DriverError("There is no account yet: `make up` (or `make preview`) starts it.")
    return _ask(endpoint, "GET" if change is None else "PUT", path, change)


def stop(home: Home) -> None:
    """End the account's process and wait for its end; nothing is done where none runs.

    It is asked first; a process that doesn't answer gets SIGTERM, then SIGKILL.
    """
    endpoint = read_endpoint(home)
    if endpoint is None:
        return
    if _healthy(endpoint):
        try:
            _ask(endpoint, "POST", "shutdown", None)
        except DriverError:
            pass  # the signals below end it as well
        else:
            _ended(endpoint.pid)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not is_account(endpoint.pid):
            return
        send(endpoint.pid, number)
        if _ended(endpoint.pid):
            return


def is_account(pid: int) -> bool:
    """Tell whether a process is an account's: pids are used again."""
    return "rehearsal.account" in _arguments(pid)


def _arguments(pid: int) -> list[str]:
    """Return a process's argv; a process that is gone, or only waits to be reaped, has none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    except OSError:
        return []


def _noted(file: Path) -> list[str]:
    return json.loads(file.read_text()) if file.exists() else []


def _ended(pid: int) -> bool:
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        if not is_account(pid):
            return True
        time.sleep(POLL_SECONDS)
    return False


def _healthy(endpoint: Endpoint) -> bool:
    try:
        _ask(endpoint, "GET", "health", None)
    except DriverError:
        return False
    return True


def _ask(endpoint: Endpoint, method: str, path: str, body: object | None) -> object:
    request = urllib.request.Request(  # noqa: S310 - loopback, from our own endpoint.json
        f"{endpoint.url}/_rehearsal/{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with _opener.open(request, timeout=ANSWER_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as problem:
        said = problem.read().decode(errors="replace")
        raise DriverError(
            f"The account refused {method} {path}: {problem.code} {said.strip()}"
        ) from problem
    except OSError as problem:
        raise DriverError(f"The account at {endpoint.url} doesn't answer ({problem}).") from problem


def _tail(file: Path, lines: int = 20) -> str:
    return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
