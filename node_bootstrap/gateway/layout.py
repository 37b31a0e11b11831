"""Ports, units and files of the gateway. Everything but the front listens on loopback alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from node_bootstrap.places import Places

Slot = Literal["a", "b"]
SLOTS: tuple[Slot, Slot] = ("a", "b")
"""Two places for a router: a new one is ready before the old one gets no more requests."""

ROUTER_PORTS: dict[str, int] = {"a": 8101, "b": 8102}
ROUTER_METRICS_PORTS: dict[str, int] = {"a": 29001, "b": 29002}
CADDY_METRICS_PORT = 2020
PROMETHEUS_PORT = 9090

DESK_SOCKET = "/run/moe-desk/desk.sock"
RELAY_SOCKET = "/run/moe-relay/relay.sock"
DESK_USER, ROUTER_USER, CADDY_USER, PROMETHEUS_USER = (
    "moe-desk",
    "moe-router",
    "caddy",
    "prometheus",
)
CADDY_STORAGE = "/var/lib/moe-caddy"
"""Certificates and the gateway's own authority."""

DESK, DESK_LISTENER = "moe-desk.service", "moe-desk.socket"
RELAY, RELAY_LISTENER = "moe-relay.service", "moe-relay.socket"
CADDY, PROMETHEUS = "moe-caddy.service", "moe-prometheus.service"


def router_unit(slot: Slot) -> str:
    """The unit of a router."""
    return f"moe-router@{slot}.service"


def router_address(slot: Slot) -> str:
    """Where the router of a slot takes requests."""
    return f"127.0.0.1:{ROUTER_PORTS[slot]}"


@dataclass(frozen=True)
class Files:
    """Where the gateway's files lie; under another root in tests."""

    places: Places

    @property
    def etc(self) -> Path:
        """What the agent renders."""
        return self.places.root / "etc/moe/gateway"

    @property
    def caddyfile(self) -> Path:
        """Of the front."""
        return self.etc / "Caddyfile"

    @property
    def prometheus(self) -> Path:
        """What is scraped."""
        return self.etc / "prometheus.yml"

    @property
    def router_targets(self) -> Path:
        """Routers that run, to be scraped; Prometheus reads it anew when it changes."""
        return self.etc / "router-targets.json"

    @property
    def keys(self) -> Path:
        """Digests of the keys; the desk reads it anew when it changes."""
        return self.etc / "keys.json"

    @property
    def route(self) -> Path:
        """Which router takes requests; the desk reads it anew when it changes."""
        return self.etc / "route.json"

    @property
    def router_secret(self) -> Path:
        """The key that vLLM asks for: only root reads it."""
        return self.etc / "router-secret.env"

    def router_workers(self, slot: Slot) -> Path:
        """Arguments of a router that follow from the groups."""
        return self.etc / f"router-{slot}.env"

    @property
    def desk(self) -> Path:
        """The desk's program."""
        return self.places.root / "opt/moe/gateway/desk.py"

    @property
    def relay(self) -> Path:
        """The relay's program."""
        return self.places.root / "opt/moe/gateway/relay.py"

    @property
    def probe_key(self) -> Path:
        """A key of the agent's own, for its completions through the whole way."""
        return self.places.state / "gateway-probe-key"

    @property
    def routers(self) -> Path:
        """What the agent remembers of its routers."""
        return self.places.state / "routers.json"

    @property
    def authority(self) -> Path:
        """Certificate of the authority that Caddy made."""
        return self.places.root / CADDY_STORAGE[1:] / "pki/authorities/local/root.crt"

    def unit(self, name: str) -> Path:
        """A systemd unit."""
        return self.places.root / "etc/systemd/system" / name
