"""What the gateway's programs are told: units and configuration files. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from node_bootstrap.gateway.layout import (
    CADDY_METRICS_PORT,
    CADDY_STORAGE,
    CADDY_USER,
    DESK_SOCKET,
    DESK_USER,
    PROMETHEUS_PORT,
    PROMETHEUS_USER,
    RELAY_SOCKET,
    ROUTER_METRICS_PORTS,
    ROUTER_PORTS,
    ROUTER_USER,
    Files,
)
from node_bootstrap.steps.role_unit import quote_argument

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from node_bootstrap.assignment import Assignment, Gateway, GatewayLimits
    from node_bootstrap.gateway.layout import Slot

API_PATHS = ("/v1/models", "/v1/completions", "/v1/chat/completions")
"""What passes: all that vllm-router serves in both of its modes."""
RETRY_SECONDS = 5
BODY_SECONDS = 60.0
"""A body that takes longer is one that never comes."""


def caddyfile(gateway: Gateway) -> str:
    """The front: TLS, limits, the key check, the way to the router.

    forward_auth is written out, as Caddy's own manual has it, because its short form can't set a
    header of the response: the key's name, which the access log then has.
    """
    tls = gateway.tls
    if tls is None:
        sites, way = f"http://:{gateway.port}", ""
    else:
        sites = ", ".join(f"https://{name}:{gateway.port}" for name in tls.names)
        way = "\ttls internal\n" if tls.issuer == "internal" else ""
    return _global(gateway.limits) + _internal() + f"{sites} {{\n{way}" + _site(gateway) + "}\n"


def _global(limits: GatewayLimits) -> str:
    # Counted from the request's headers on, and its body is read only once a router can take it.
    body_seconds = BODY_SECONDS + limits.wait_seconds
    return f"""{{
	admin unix//run/moe-caddy/admin.sock
	auto_https disable_redirects
	skip_install_trust
	storage file_system {CADDY_STORAGE}
	grace_period 30s
	servers {{
		protocols h1 h2
		max_header_size 64KB
		timeouts {{
			read_header 10s
			read_body {body_seconds:g}s
			idle 5m
		}}
		metrics
	}}
}}

"""


def _internal() -> str:
    return f"""http://127.0.0.1:{CADDY_METRICS_PORT} {{
	bind 127.0.0.1
	route {{
		metrics /metrics
		handle_path /desk/* {{
			reverse_proxy unix/{DESK_SOCKET}
		}}
		respond 404
	}}
}}

"""


def _site(gateway: Gateway) -> str:
    limits = gateway.limits
    return f"""	log {{
		output stdout
		# Headers of a request are most of its line, and nobody asks for them.
		format filter {{
			wrap json
			fields {{
				request>headers delete
				request>tls delete
			}}
		}}
	}}
	route {{
		header -Server
		request_body {{
			max_size {limits.body_bytes}
		}}
		route /health {{
			reverse_proxy unix/{DESK_SOCKET}
		}}
		@api path {" ".join(API_PATHS)}
		route @api {{
			request_header -X-Moe-*
			reverse_proxy unix/{DESK_SOCKET} {{
				method GET
				rewrite /check
				header_up X-Moe-Length {{http.request.header.Content-Length}}
				@passes status 200
				handle_response @passes {{
					header X-Moe-Key {{http.reverse_proxy.header.X-Moe-Key}}
				}}
			}}
			request_header -Authorization
			request_header Authorization "Bearer {{env.OPENAI_API_KEY}}"
			reverse_proxy unix/{RELAY_SOCKET} {{
				header_up -X-Moe-*
				# No flush_interval: event streams are flushed at once without it, and with -1 Caddy
				# goes on with a request whose client has left.
				transport http {{
					dial_timeout 2s
					response_header_timeout {limits.request_seconds:g}s
					# The relay takes one request a connection.
					keepalive off
				}}
			}}
		}}
		header Content-Type application/json
		respond `{_error("No such path.", "invalid_request_error", "unknown_url")}` 404
	}}
{_errors(limits)}"""


def _errors(limits: GatewayLimits) -> str:
    return f"""	handle_errors {{
		header -Server
		header Content-Type application/json
		@large expression {{err.status_code}} == 413
		route @large {{
			respond `{
        _error(
            f"The request is larger than {limits.body_bytes} bytes.",
            "invalid_request_error",
            "request_too_large",
        )
    }` 413
		}}
		@late expression {{err.status_code}} == 504
		route @late {{
			respond `{_error("The request took too long.", "server_error", "timeout")}` 504
		}}
		header Retry-After {RETRY_SECONDS}
		respond `{
        _error("No group can take requests now. Try again shortly.", "server_error", "unavailable")
    }` 503
	}}
"""


def _error(message: str, kind: str, code: str) -> str:
    document = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    # Caddy takes {} and what is in it for a placeholder only where it looks like one.
    return json.dumps(document)


def keys_file(gateway: Gateway, model: str, probe_sha256: str) -> str:
    """What the desk reads: digests, and the agent's own key for its completions."""
    keys = [
        {
            "name": key.name,
            "sha256": key.sha256,
            "expires_at": key.expires_at,
            "models": key.models,
            "requests_per_minute": key.requests_per_minute,
        }
        for key in gateway.keys
    ]
    keys.append({"name": "moe-probe", "sha256": probe_sha256})
    return json.dumps({"model": model, "keys": keys}, sort_keys=True, indent=1) + "\n"


def prometheus_yml(assignment: Assignment, gateway: Gateway, files: Files) -> str:
    """What is scraped: engines, agents, nodes, routers, the front and the desk."""
    port = assignment.agent_port
    engines = [(url.removeprefix("http://"), g.name) for g in gateway.groups for url in g.urls]
    agents = [
        *((f"{m.address}:{port}", m.name) for g in gateway.groups for m in g.members),
        (f"{assignment.me.address}:{port}", assignment.node),
    ]
    jobs = [
        _job("vllm", engines),
        _job("agent", agents),
        _job("node", agents, "/metrics/node"),
        {"job_name": "router", "file_sd_configs": [{"files": [str(files.router_targets)]}]},
        _job("caddy", [(f"127.0.0.1:{CADDY_METRICS_PORT}", "caddy")]),
        _job("desk", [(f"127.0.0.1:{CADDY_METRICS_PORT}", "desk")], "/desk/metrics"),
        _job("prometheus", [(f"127.0.0.1:{PROMETHEUS_PORT}", "prometheus")]),
    ]
    # JSON is YAML: no serialiser is needed, and no value can break out of its quotes.
    return json.dumps(
        {
            "global": {"scrape_interval": "5s", "scrape_timeout": "4s"},
            "scrape_configs": jobs,
        },
        indent=1,
    )


def router_targets(slots: Iterable[str]) -> str:
    """The routers that run: only one does most of the time."""
    targets = [(f"127.0.0.1:{ROUTER_METRICS_PORTS[s]}", f"router-{s}") for s in sorted(slots)]
    return json.dumps(_targets(targets))


def _job(
    name: str, targets: Sequence[tuple[str, str]], path: str = "/metrics"
) -> dict[str, object]:
    return {"job_name": name, "metrics_path": path, "static_configs": _targets(targets)}


def _targets(targets: Sequence[tuple[str, str]]) -> list[dict[str, object]]:
    """(address, name) of each: the name is its label `instance`."""
    return [{"targets": [target], "labels": {"instance": who}} for target, who in targets]


def workers(gateway: Gateway, routed: Sequence[str], slot: Slot) -> str:
    """The environment file of a router: arguments that systemd splits at blanks."""
    words = [
        *("--host", "127.0.0.1", "--port", str(ROUTER_PORTS[slot])),
        *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(ROUTER_METRICS_PORTS[slot])),
    ]
    groups = [group for group in gateway.groups if group.name in routed]
    for group in groups:
        if group.role != "serve":
            words += [word for url in group.urls for word in (f"--{group.role}", url)]
    plain = [url for group in groups if group.role == "serve" for url in group.urls]
    if plain:
        words += ["--worker-urls", *plain]
    return f'MOE_ROUTER_ARGUMENTS="{" ".join(words)}"\n'


def router_unit(gateway: Gateway, files: Files) -> str:
    """The template unit of both routers."""
    argv = " ".join(quote_argument(argument) for argument in gateway.router_argv)
    return f"""[Unit]
Description=MoE serving: router %i
StartLimitIntervalSec=0

[Service]
Type=exec
User={ROUTER_USER}
EnvironmentFile={files.router_secret}
EnvironmentFile={files.etc}/router-%i.env
Environment=PYTHONUNBUFFERED=1
ExecStart={argv} $MOE_ROUTER_ARGUMENTS
Restart=always
RestartSec=0.2
# SIGTERM closes its port; what it has begun it may end.
TimeoutStopSec={gateway.limits.drain_seconds:g}
{_HARDENED}"""


def caddy_unit(files: Files) -> str:
    """The front. Its own port is below 1024; it runs as a user all the same."""
    return f"""[Unit]
Description=MoE serving: TLS, keys and limits in front of the router
StartLimitIntervalSec=0
After=network-online.target moe-desk.socket moe-relay.socket

[Service]
Type=notify
User={CADDY_USER}
Group={CADDY_USER}
EnvironmentFile={files.router_secret}
Environment=HOME={CADDY_STORAGE} XDG_CONFIG_HOME={CADDY_STORAGE} XDG_DATA_HOME={CADDY_STORAGE}
ExecStart=/usr/bin/caddy run --config {files.caddyfile} --adapter caddyfile
ExecReload=/usr/bin/caddy reload --config {files.caddyfile} --adapter caddyfile --force
RuntimeDirectory=moe-caddy
StateDirectory=moe-caddy
AmbientCapabilities=CAP_NET_BIND_SERVICE
Restart=always
RestartSec=0.2
TimeoutStopSec=35
LimitNOFILE=65536
{_HARDENED}"""


def desk_socket() -> str:
    """The socket stays open while the desk is restarted."""
    return _socket("where the front asks for keys", DESK_SOCKET)


def desk_unit(files: Files) -> str:
    """The key check."""
    return f"""[Unit]
Description=MoE serving: key check of the gateway
Requires=moe-desk.socket
StartLimitIntervalSec=0

[Service]
Type=exec
User={DESK_USER}
Group={DESK_USER}
Environment=PYTHONUNBUFFERED=1
ExecStart=/usr/bin/python3 -I {files.desk} {files.keys} {files.route}
Restart=always
RestartSec=0.2
{_HARDENED}"""


def relay_socket() -> str:
    """The socket stays open while the relay is restarted."""
    return _socket("where the front hands requests on", RELAY_SOCKET)


def relay_unit(gateway: Gateway, files: Files) -> str:
    """Between front and router."""
    drain = f"{gateway.limits.drain_seconds:g}"
    return f"""[Unit]
Description=MoE serving: requests to the router, and again where a group died
Requires=moe-relay.socket
StartLimitIntervalSec=0

[Service]
Type=exec
User={DESK_USER}
Group={DESK_USER}
Environment=PYTHONUNBUFFERED=1
ExecStart=/usr/bin/python3 -I {files.relay} {files.route} {drain}
Restart=always
RestartSec=0.2
# Its processes end by themselves: those of the last one may still carry streams to their end.
KillMode=process
LimitNOFILE=65536
{_HARDENED}"""


def prometheus_unit(files: Files) -> str:
    """Metrics of the whole stack, two weeks of them, on loopback."""
    return f"""[Unit]
Description=MoE serving: metrics of the stack

[Service]
Type=exec
User={PROMETHEUS_USER}
Group={PROMETHEUS_USER}
ExecStart=/usr/bin/prometheus --config.file={files.prometheus} \\
  --storage.tsdb.path=/var/lib/moe-prometheus --storage.tsdb.retention.time=14d \\
  --web.listen-address=127.0.0.1:{PROMETHEUS_PORT}
ExecReload=/bin/kill -HUP $MAINPID
StateDirectory=moe-prometheus
Restart=always
RestartSec=2
{_HARDENED}"""


def _socket(what: str, path: str) -> str:
    """A socket that the front alone may connect to."""
    return f"""[Unit]
Description=MoE serving: {what}

[Socket]
ListenStream={path}
SocketUser={DESK_USER}
SocketGroup={CADDY_USER}
SocketMode=0660
Backlog=1024

[Install]
WantedBy=sockets.target
"""


_HARDENED = """NoNewPrivileges=yes
PrivateTmp=yes
LimitCORE=0
"""
