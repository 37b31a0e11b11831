"""Steps of the gateway: its Debian packages, its users, files and units."""

from __future__ import annotations

import grp
import hashlib
import pwd
import secrets
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from node_bootstrap import durable, runner
from node_bootstrap.gateway import layout, render
from node_bootstrap.steps.base import Check, Frequency, StepError, key_of
from node_bootstrap.steps.role_unit import environment_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from node_bootstrap.assignment import Assignment, Gateway
    from node_bootstrap.gateway.layout import Files
    from node_bootstrap.gateway.units import Units
    from node_bootstrap.status import NodePhase

_DEBIANS_OWN = ("caddy.service", "caddy-api.service", "prometheus.service")


@dataclass(frozen=True)
class PackagesStep:
    """Finds Debian packages of their versions, or installs them with apt."""

    wanted: Mapping[str, str]
    name: str = "packages"
    phase: NodePhase = "software"
    frequency: Frequency = "change"
    timeout_seconds: float = 600
    needs: tuple[str, ...] = ("hardware",)

    @property
    def key(self) -> str:
        """The packages."""
        return str(sorted(self.wanted.items()))

    def check(self) -> Check:
        """Compare upstream versions: Debian's revisions mend and change nothing else."""
        have = self._have()
        wrong = [
            f"{name} {version} is missing" if name not in have else f"{name} is {have[name]}"
            for name, version in sorted(self.wanted.items())
            if not same_upstream(have.get(name, ""), version)
        ]
        found = ", ".join(f"{name} {have[name]}" for name in sorted(self.wanted) if name in have)
        return Check(done=not wrong, detail="; ".join(wrong) or found)

    def apply(self, deadline: float) -> None:
        """Install what is missing, without the units that Debian would start."""
        del deadline
        found = self.check().detail
        try:
            runner.run(["systemctl", "mask", *_DEBIANS_OWN], timeout_seconds=60)
            runner.run(["apt-get", "update", "-q"], timeout_seconds=120)
            runner.run(
                ["apt-get", "install", "-q", "-y", "--no-install-recommends", *sorted(self.wanted)],
                timeout_seconds=self.timeout_seconds,
                env={"DEBIAN_FRONTEND": "noninteractive", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )
        except runner.CommandError as error:
            raise StepError(
                f"the gateway's packages are not as planned ({found}) and could not be installed. "
                "Give the node a way to Debian's archive: `network.nat`, or the routes of the "
                f"existing subnet, with TCP port 80 open outwards.\n{error}"
            ) from error

    def _have(self) -> dict[str, str]:
        query = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev} ${Version}\\n"]
        try:
            listed = runner.run([*query, *sorted(self.wanted)], timeout_seconds=30)
        except runner.CommandError as error:  # one of them is unknown; the others are listed
            if error.exit_code != 1:
                raise
            listed = error.stdout
        rows = [line.split() for line in listed.splitlines()]
        return {row[0]: row[2] for row in rows if len(row) == 3 and row[1] == "ii"}


def same_upstream(have: str, wanted: str) -> bool:
    """Whether a Debian version is of an upstream one: 2.53.3+ds1-2 is of 2.53.3."""
    upstream = have.rpartition("-")[0].partition("+")[0].partition(":")
    return (upstream[2] or upstream[0]) == wanted


@dataclass(frozen=True)
class GatewayStep:
    """Writes what the gateway's units need, and has those that changed take it up."""

    assignment: Assignment
    gateway: Gateway
    files: Files
    units: Units
    parameters: Callable[[Sequence[str]], Mapping[str, str]]
    name: str = "gateway"
    phase: NodePhase = "role"
    frequency: Frequency = "change"
    timeout_seconds: float = 120
    needs: tuple[str, ...] = ("hardware", "software", "packages")

    @property
    def key(self) -> str:
        """Digest of what it was asked to do."""
        return key_of(self.gateway)

    def check(self) -> Check:
        """Compare files and units with what they must be."""
        wrong = [f"user {user} is missing" for user in _users_missing()]
        if not wrong:
            wrong += [f"{path.name} is not as assigned" for path in self._stale()]
        states = self.units.states(_RUNNING)
        wrong += [f"{u} is {s}" for u in _RUNNING if (s := states.get(u, "missing")) != "active"]
        return Check(done=not wrong, detail="; ".join(wrong) or "units and files are as assigned")

    def apply(self, deadline: float) -> None:
        """Make users and files; reload or restart what they concern."""
        del deadline
        for user in _users_missing():
            if user not in (layout.DESK_USER, layout.ROUTER_USER):
                raise StepError(f"user {user} is missing: its Debian package makes it")
            command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin"]
            runner.run([*command, user], timeout_seconds=30)
        stale = {path.name for path in self._stale()}
        for path, text, mode, group in self._wanted():
            if path.name in stale:
                durable.write(path, text.encode(), mode=mode, group=group)
        if any(name.startswith("moe-") for name in stale):
            self.units.act("daemon-reload")
        self._take_up(stale)

    def _take_up(self, stale: set[str]) -> None:
        states = self.units.states(_RUNNING)
        for unit, restart_for, reload_for in _TAKES_UP:
            if states.get(unit) != "active":
                self.units.act("enable" if unit.endswith(".socket") else "start", *_now(unit))
            elif stale & restart_for:
                self.units.act("restart", unit)
            elif stale & reload_for:
                self.units.act("reload", unit)

    def _stale(self) -> list[Path]:
        return [
            path
            for path, text, mode, group in self._wanted()
            if not path.is_file()
            or path.read_text() != text
            or path.stat().st_mode & 0o777 != mode
            or (group is not None and path.stat().st_gid != group)
        ]

    def _wanted(self) -> tuple[tuple[Path, str, int, int | None], ...]:
        """(file, its text, its mode, its group where not root's)."""
        files, gateway = self.files, self.gateway
        desk = resources.files("node_bootstrap.files").joinpath("desk.py").read_text()
        relay = resources.files("node_bootstrap.files").joinpath("relay.py").read_text()
        digest = hashlib.sha256(probe_key(files).encode()).hexdigest()
        keys = render.keys_file(gateway, self.assignment.probe.model, digest)
        units = {
            layout.DESK_LISTENER: render.desk_socket(),
            layout.DESK: render.desk_unit(files),
            layout.RELAY_LISTENER: render.relay_socket(),
            layout.RELAY: render.relay_unit(gateway, files),
            layout.CADDY: render.caddy_unit(files),
            layout.PROMETHEUS: render.prometheus_unit(files),
            "moe-router@.service": render.router_unit(gateway, files),
        }
        return (
            (files.desk, desk, 0o644, None),
            (files.relay, relay, 0o644, None),
            (files.keys, keys, 0o640, grp.getgrnam(layout.DESK_USER).gr_gid),
            (files.caddyfile, render.caddyfile(gateway), 0o644, None),
            (files.prometheus, render.prometheus_yml(self.assignment, gateway, files), 0o644, None),
            (files.router_secret, self._secret(), 0o600, None),
            *((files.unit(name), text, 0o644, None) for name, text in units.items()),
        )

    def _secret(self) -> str:
        names = self.assignment.secret_env
        values = self.parameters(sorted(set(names.values())))
        return environment_file({variable: values[name] for variable, name in names.items()})


_RUNNING = (
    *(layout.DESK_LISTENER, layout.DESK),
    *(layout.RELAY_LISTENER, layout.RELAY),
    *(layout.CADDY, layout.PROMETHEUS),
)
_TAKES_UP: tuple[tuple[str, set[str], set[str]], ...] = (
    (layout.DESK_LISTENER, set(), set()),
    (layout.DESK, {"desk.py", layout.DESK}, set()),
    (layout.RELAY_LISTENER, set(), set()),
    (layout.RELAY, {"relay.py", layout.RELAY}, set()),
    (layout.CADDY, {layout.CADDY, "router-secret.env"}, {"Caddyfile"}),
    (layout.PROMETHEUS, {layout.PROMETHEUS}, {"prometheus.yml"}),
)
"""Unit, files for which it is restarted, files that it reads anew while it runs."""


def probe_key(files: Files) -> str:
    """The agent's own key, made once."""
    if not files.probe_key.is_file():
        durable.write(files.probe_key, f"sk-{secrets.token_urlsafe(32)}".encode(), mode=0o600)
    return files.probe_key.read_text()


def _now(unit: str) -> tuple[str, ...]:
    return ("--now", unit) if unit.endswith(".socket") else (unit,)


def _users_missing() -> list[str]:
    have = {entry.pw_name for entry in pwd.getpwall()}
    wanted = (layout.CADDY_USER, layout.PROMETHEUS_USER, layout.DESK_USER, layout.ROUTER_USER)
    return [user for user in wanted if user not in have]
