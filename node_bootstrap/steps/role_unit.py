"""The role's systemd unit: its user, its environment with secrets, its command line."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from node_bootstrap import durable, runner
from node_bootstrap.assignment import PRIMARY_INTERFACE, Assignment
from node_bootstrap.steps import container, library
from node_bootstrap.steps.base import Check, Frequency, StepError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from node_bootstrap.places import Places
    from node_bootstrap.status import NodePhase

USER = "moe-role"
UNIT = "moe-role.service"


# docker's client needs root; what it starts has no new privileges. A client that is killed leaves
# its container running, hence the two removals.
_CONTAINER = f"""ExecStartPre=-{container.DOCKER} rm --force {container.NAME}
ExecStopPost=-{container.DOCKER} rm --force {container.NAME}
"""
# RDMA registers what vLLM sends: systemd's limit of locked memory is 8 MiB.
_LOCKED = "LimitMEMLOCK=infinity\n"


def unit(  # noqa: PLR0913 - named, and each a line of the unit
    argv: Sequence[str],
    *,
    node: str,
    environment: Path,
    stop_seconds: float,
    contained: bool = False,
    gpus: bool = False,
) -> str:
    """The unit's text. contained: `argv` is docker's. gpus: the node has some.

    Restart=no: the agent decides when the group starts again; a member that comes back by itself
    can't rejoin. PrivateTmp: a killed vLLM leaves its sockets in /tmp.
    """
    extra = (_CONTAINER if contained else "") + (_LOCKED if gpus and not contained else "")
    if contained:
        return _unit(argv, node, environment, stop_seconds + 10, extra)
    return f"""[Unit]
Description=MoE serving: role of {node}
After=network-online.target

[Service]
Type=exec
User={USER}
StateDirectory=moe-role
WorkingDirectory=/var/lib/moe-role
Environment=HOME=/var/lib/moe-role PYTHONUNBUFFERED=1
EnvironmentFile={environment}
ExecStart={" ".join(quote_argument(a) for a in argv)}
Restart=no
KillMode=control-group
TimeoutStopSec={stop_seconds:g}
PrivateTmp=yes
NoNewPrivileges=yes
LimitCORE=0
OOMPolicy=stop
{extra}"""


def _unit(
    argv: Sequence[str], node: str, environment: Path, stop_seconds: float, extra: str
) -> str:
    """Of a container: docker stops it in order, and is given the time for that."""
    return f"""[Unit]
Description=MoE serving: role of {node}
After=network-online.target docker.service
Requires=docker.service

[Service]
Type=exec
StateDirectory=moe-role
WorkingDirectory=/var/lib/moe-role
EnvironmentFile={environment}
ExecStart={" ".join(quote_argument(a) for a in argv)}
{extra}Restart=no
KillMode=control-group
TimeoutStopSec={stop_seconds:g}
LimitCORE=0
OOMPolicy=stop
"""


def quote_argument(argument: str) -> str:
    """One argument of ExecStart as systemd reads it back (systemd.service, COMMAND LINES).

    Raises:
        StepError: it holds a line break or NUL, which a unit file can't carry.
    """
    _refuse_breaks("an argument", argument)
    text = argument.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + text.replace("%", "%%").replace("$", "$$") + '"'


def environment_file(env: Mapping[str, str]) -> str:
    """The text of an EnvironmentFile: sorted, every value in double quotes.

    Raises:
        StepError: a value holds a line break or NUL; the message names the variable only.
    """
    lines = []
    for name, value in sorted(env.items()):
        _refuse_breaks(f"the value of {name}", value)
        text = value
        for special in ("\\", '"', "$", "`"):
            text = text.replace(special, "\\" + special)
        lines.append(f'{name}="{text}"\n')
    return "".join(lines)


def role_environment(
    assignment: Assignment, interface: str, secrets: Mapping[str, str]
) -> dict[str, str]:
    """The role's environment: what the plan says, the interface's name and secrets filled in.

    Args:
        assignment: the node's assignment.
        interface: name of the interface that carries the node's address.
        secrets: SSM parameter -> value, of all that `secret_env` names.
    """
    env = {k: v.replace(PRIMARY_INTERFACE, interface) for k, v in assignment.env.items()}
    return env | {k: secrets[parameter] for k, parameter in assignment.secret_env.items()}


def _refuse_breaks(what: str, text: str) -> None:
    if any(c in text for c in "\n\r\0"):
        raise StepError(f"{what} has a line break or NUL: a systemd unit can't carry it")


@dataclass(frozen=True)
class RoleStep:
    """Writes what `moe-role.service` needs; starting it is the group's business.

    find_interface: name of the interface that carries the node's address.
    parameters: names of SSM parameters -> their values; StepError when one can't be read.
    systemd: whether there is a systemd to tell, and a user to make.
    """

    assignment: Assignment
    places: Places
    find_interface: Callable[[], str]
    parameters: Callable[[Sequence[str]], Mapping[str, str]]
    systemd: bool = True
    name: str = "role"
    phase: NodePhase = "role"
    frequency: Frequency = "change"
    timeout_seconds: float = 120
    needs: tuple[str, ...] = ("hardware", "software", "weights")

    @property
    def key(self) -> str:
        """Digest of command line and environment."""
        a = self.assignment
        text = repr((a.argv, sorted(a.env.items()), sorted(a.secret_env.items())))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def check(self) -> Check:
        """Compare the files with what they must hold."""
        wrong = []
        if self.systemd and not _user_exists():
            wrong.append(f"user {USER} is missing")
        if self._seed_missing():
            wrong.append("vLLM's cache is not seeded")
        elif self._cache_is_foreign():
            wrong.append(f"vLLM's cache does not belong to {USER}")
        for path, text, mode in self._files():
            if not path.is_file() or path.read_text() != text:
                wrong.append(f"{path.name} is not as assigned")
            elif path.stat().st_mode & 0o777 != mode:
                wrong.append(f"{path.name} has another mode than {mode:o}")
        if self.systemd and not wrong and _unread():
            wrong.append(f"systemd has not read {UNIT} yet")
        detail = "; ".join(wrong) or f"{UNIT} and its environment are as assigned"
        return Check(done=not wrong, detail=detail)

    def apply(self, deadline: float) -> None:
        """Make the user, seed the cache, write the files, tell systemd."""
        del deadline
        if self.systemd and not _user_exists():
            command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin"]
            runner.run([*command, USER], timeout_seconds=30)
        if self._seed_missing():
            self._seed()
        elif self._cache_is_foreign():
            owner = pwd.getpwnam(USER)
            for path in (*self.places.cache.rglob("*"), self.places.cache):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        for path, text, mode in self._files():
            durable.write(path, text.encode(), mode=mode)
        if self.systemd:
            runner.run(["systemctl", "daemon-reload"], timeout_seconds=60)

    def _files(self) -> tuple[tuple[Path, str, int], ...]:
        a = self.assignment
        if a.backend is not None:
            argv, env = library.in_effect(a.argv, a.env, library.decided(self.places))
            a = replace(a, argv=argv, env=env)
        secrets = self.parameters(sorted(set(a.secret_env.values())))
        env = role_environment(a, self.find_interface(), secrets)
        contained = a.software.runtime == "container"
        argv = container.docker_run(a, self.places, tuple(env)) if contained else a.argv
        text = unit(
            argv,
            node=a.node,
            environment=self.places.role_env,
            stop_seconds=a.limits.stop_seconds,
            contained=contained,
            gpus=a.hardware.gpu_count > 0,
        )
        return (
            (self.places.role_env, environment_file(env), 0o600),
            (self.places.role_unit, text, 0o644),
        )

    def _seed_missing(self) -> bool:
        cache = self.places.cache
        return not cache.is_dir() or (self.places.cache_seed.is_dir() and not any(cache.iterdir()))

    def _cache_is_foreign(self) -> bool:
        """A folder on the local disks was made by root; in a container root writes to it."""
        if not self.systemd or self.assignment.software.runtime == "container":
            return False
        cache = self.places.cache
        return cache.is_dir() and _user_exists() and not _owns(cache)

    def _seed(self) -> None:
        """The first start of vLLM is seconds quicker with the cache that the image brings."""
        cache, seed = self.places.cache, self.places.cache_seed
        temporary = cache.with_name(cache.name + ".new")
        shutil.rmtree(temporary, ignore_errors=True)
        if seed.is_dir():
            shutil.copytree(seed, temporary)
        else:
            temporary.mkdir(parents=True)
        if self.systemd:
            owner = pwd.getpwnam(USER)
            for path in (temporary, *temporary.rglob("*")):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        temporary.replace(cache)


def _user_exists() -> bool:
    return any(entry.pw_name == USER for entry in pwd.getpwall())


def _unread() -> bool:
    """Whether the unit's file was written and systemd never told: a run was killed in between."""
    command = ["systemctl", "show", "--property=NeedDaemonReload", "--value", UNIT]
    return runner.run(command, timeout_seconds=30).strip() == "yes"


def _owns(path: Path) -> bool:
    return path.stat().st_uid == pwd.getpwnam(USER).pw_uid
