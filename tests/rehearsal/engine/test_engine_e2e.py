"""The built engine runs programs through our language host; it is built where no cache has it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from rehearsal import engine
from rehearsal.driver.pulumi import Pulumi
from rehearsal.paths import Home

pytestmark = pytest.mark.e2e

PROGRAM = """
import os, pathlib, time
import pulumi

here = pathlib.Path(os.environ["TEST_FOLDER"])
settings = pulumi.Config()

def wait(args):
    (here / "hook-began").write_text(args.name)
    while (here / "hold").exists():
        time.sleep(0.1)
    if (here / "refuse").exists():
        raise RuntimeError((here / "refuse").read_text())

class Group(pulumi.ComponentResource):
    def __init__(self, name):
        hooks = pulumi.ResourceHookBinding(
            before_create=[pulumi.ResourceHook("wait", wait)])
        super().__init__("test:index:Group", name, {}, pulumi.ResourceOptions(hooks=hooks))
        self.register_outputs({})

print("the program speaks")
Group("serve")
pulumi.export("greeting", f"hello {settings.require('who')}")
pulumi.export("key", settings.require_secret("key") if settings.get("key") else
              pulumi.Output.secret("hidden-value"))
"""


@pytest.fixture
def pulumi(tmp_path: Path) -> Pulumi:
    found = engine.build.build()
    project = tmp_path / "project"
    (project / "infra").mkdir(parents=True)
    venv = Path(sys.executable).parent.parent
    (project / "Pulumi.yaml").write_text(
        f"name: moe-serving\nruntime: {{name: python, options: {{virtualenv: {venv}}}}}\n"
        "main: infra/\n"
    )
    (project / "infra" / "__main__.py").write_text(PROGRAM)
    home = Home(tmp_path / "rehearsal")
    endpoint = engine.Endpoint("http://127.0.0.1:9", "us-east-1", "id", "key", 0)
    added = engine.environment(home, endpoint, found)
    environment = {**engine.for_child(os.environ, added), "TEST_FOLDER": str(tmp_path)}
    stack = Pulumi(found.pulumi, "dev", project, home, environment)
    stack.config_file.parent.mkdir(parents=True)
    stack.config_file.write_text("config:\n  moe-serving:who: you\n")
    stack.select()
    return stack


def test_a_program_is_applied_read_and_destroyed(pulumi: Pulumi, capfd: pytest.CaptureFixture[str]):
    assert pulumi.run("up", "--yes", "--skip-preview") == 0
    said = capfd.readouterr()
    assert "the program speaks" in said.out
    assert "warning" not in said.out + said.err
    outputs = json.loads(pulumi.ask("stack", "output", "--json", "--stack", "dev"))
    assert outputs == {"greeting": "hello you", "key": "[secret]"}
    assert pulumi.run("preview", "--expect-no-changes") == 0
    assert pulumi.run("destroy", "--yes", "--skip-preview") == 0
    assert not pulumi.deployment().get("resources")


def test_the_state_holds_no_secret_in_clear(pulumi: Pulumi):
    pulumi.run("up", "--yes", "--skip-preview")
    files = [path for path in pulumi.home.root.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"hidden-value" in path.read_bytes()]


def test_the_salt_stays_out_of_the_checkout(pulumi: Pulumi):
    pulumi.run("up", "--yes", "--skip-preview")
    assert "encryptionsalt" in pulumi.config_file.read_text()
    assert not list(pulumi.project.glob("Pulumi.dev.yaml"))


def test_a_hook_that_raises_fails_the_update_with_its_reason(
    pulumi: Pulumi, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "refuse").write_text("the group never got ready")
    assert pulumi.run("up", "--yes", "--skip-preview") != 0
    said = capfd.readouterr()
    assert "the group never got ready" in said.out + said.err


def test_a_failing_program_shows_its_own_traceback(
    pulumi: Pulumi, capfd: pytest.CaptureFixture[str]
):
    (pulumi.project / "infra" / "__main__.py").write_text("raise ValueError('no such model')\n")
    assert pulumi.run("up", "--yes", "--skip-preview") != 0
    said = capfd.readouterr()
    assert "no such model" in said.out + said.err


def test_no_process_stays_after_an_operation(pulumi: Pulumi):
    pulumi.run("up", "--yes", "--skip-preview")
    assert _processes_of(pulumi.home) == []


def test_an_interrupt_cancels_and_leaves_no_lock(pulumi: Pulumi, tmp_path: Path):
    driver = _held_in_the_hook(pulumi, tmp_path)
    driver.send_signal(signal.SIGINT)
    (tmp_path / "hold").unlink()
    assert driver.wait(60) != 0
    assert pulumi.locks() == []
    assert pulumi.run("up", "--yes", "--skip-preview") == 0


def test_a_killed_engine_takes_its_program_along_and_its_lock_is_removed(
    pulumi: Pulumi, tmp_path: Path
):
    driver = _held_in_the_hook(pulumi, tmp_path)
    (lock,) = pulumi.locks()
    assert lock.held
    os.kill(lock.pid, signal.SIGKILL)
    assert driver.wait(60) != 0
    _until(lambda: _processes_of(pulumi.home) == [])
    assert [lock.held for lock in pulumi.locks()] == [False]
    pulumi.unlock()
    (tmp_path / "hold").unlink()
    assert pulumi.run("up", "--yes", "--skip-preview") == 0


def test_at_a_terminal_it_asks_nothing_of_it_and_stays_in_colour(pulumi: Pulumi):
    terminal, other_end = pty.openpty()
    driver = subprocess.Popen(
        _driver(pulumi),
        env=dict(pulumi.environment),
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
        start_new_session=True,
        # the only way to a controlling terminal; this process has no threads of its own
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    os.close(other_end)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a pseudo-terminal is EIO
        while data := os.read(terminal, 65536):
            shown += data
    os.close(terminal)
    assert driver.wait(60) == 0
    assert b"\x1b]11;?" not in shown  # the query for the background colour: 5 s without answer
    assert b"\x1b[" in shown


def _held_in_the_hook(pulumi: Pulumi, tmp_path: Path) -> subprocess.Popen[bytes]:
    (tmp_path / "hold").touch()
    driver = subprocess.Popen(_driver(pulumi), env=dict(pulumi.environment), start_new_session=True)
    _until((tmp_path / "hook-began").exists)
    return driver


def _driver(pulumi: Pulumi) -> list[str]:
    """A process of its own that runs `up` as the driver does."""
    script = (
        "import os, pathlib, sys\n"
        "from rehearsal.driver.pulumi import Pulumi\n"
        "from rehearsal.paths import Home\n"
        "program, project, root = map(pathlib.Path, sys.argv[1:])\n"
        "stack = Pulumi(program, 'dev', project, Home(root), dict(os.environ))\n"
        "sys.exit(stack.run('up', '--yes', '--skip-preview'))\n"
    )
    places = (pulumi.program, pulumi.project, pulumi.home.root)
    return [sys.executable, "-c", script, *map(str, places)]


def _processes_of(home: Home) -> list[str]:
    """Processes that have this rehearsal's Pulumi home in their environment, the test's aside."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mine = f"PULUMI_HOME={home.pulumi_home}".encode() in (folder / "environ").read_bytes()
            if mine and int(folder.name) != os.getpid():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def _until(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)
