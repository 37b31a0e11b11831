"""The account's WSGI application: control paths, moto's services, errors in a client's form."""

from __future__ import annotations

import io
import json
import logging
import threading
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError
from botocore.model import OperationNotFoundError
from moto.ec2.models import ec2_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from rehearsal.account.ec2.backend import Backend, backend_of, backends
from rehearsal.account.ec2.limits import parse_limits, shown_limits
from rehearsal.account.environment import ACCOUNT_ID
from rehearsal.account.faults import Faults, at_once, parse
from rehearsal.account.images import BOOTABLE, register
from rehearsal.account.life import Life
from rehearsal.account.stateless import Stateless
from rehearsal.account.wire import error_body, region_of, service_of
from rehearsal.hub import PREFIX as HUB
from rehearsal.hub import Hub, below_hub, told_to_hub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from rehearsal.account.persistence import Store
    from rehearsal.machine.interface import Machine

log = logging.getLogger(__name__)

Answer = tuple[int, dict[str, Any]]
"""Status and JSON of a control path."""
CONTROL = "/_rehearsal/"
CLOSED = ("/moto-api", "/latest/")
"""moto's own control paths: they reset state and auth, and its metadata service is not ours."""
NO_MACHINE = (
    "This account was started without --image, so it cannot boot instances: start it with one, "
    "or apply without booting."
)
READS = ("Describe", "Get", "List", "Head", "Lookup", "Search")
WATCH_SECONDS = 2.0
"""How often instances are looked at without the machine having reported anything."""


class Account:
    """One account: its lock, its state on disk, its instances' life.

    Every request is served under one lock: moto's tables have none, and a state that is written
    while they change would be neither the old nor the new one.
    """

    def __init__(self, lock: AbstractContextManager[Any], store: Store, faults: Faults) -> None:
        self.lock = lock
        self.store = store
        self.faults = faults
        self.app = DomainDispatcherApplication(create_backend_app)
        self.hub = Hub()
        self.stop: Callable[[], None] = lambda: None
        """Ends the process; set by whoever serves the application."""
        self._woken = threading.Event()
        self._regions: set[str] = set()

    def use(self, machine: Machine | None) -> None:
        """Run instances on this machine from now on; None: they only have states."""
        self.can_boot = machine is not None
        self.life = Life(
            machine or Stateless(),
            Stateless(),
            self.backends,
            self.store.save,
            BOOTABLE,
            boot=self.can_boot,
            pending_seconds=self.faults.pending_seconds,
        )

    def backends(self) -> list[Backend]:
        """The EC2 of every region used, each with the public images."""
        found = backends(ACCOUNT_ID)
        for backend in found:
            if backend.region_name not in self._regions:
                self._regions.add(backend.region_name)
                register(backend)
        return found

    def machine_changed(self, instance_id: str) -> None:
        """The machine reports a change; looked at soon, on a thread of the account's own.

        Not at once: the caller may hold a lock of the machine, which requests wait for.
        """
        log.debug("%s changed", instance_id)
        self._woken.set()

    def watch(self) -> None:
        """Follow the machine for ever; the body of a daemon thread."""
        while True:
            self._woken.wait(WATCH_SECONDS)
            self._woken.clear()
            try:
                with self.lock:
                    if self.life.reconcile():
                        self.store.changed()
            except Exception:
                log.exception("The instances could not be brought up to date")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        path = environ.get("PATH_INFO", "")
        if path.startswith(CONTROL):
            return self._control(environ, start_response)
        if path.startswith(f"{HUB}/"):
            return self.hub(below_hub(environ), start_response)
        if path.startswith(CLOSED):
            return _fail(environ, start_response, 404, "InvalidAction", f"{path} is not served.")
        return self._serve(environ, start_response)

    def serve_vpc(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request from inside a VPC: the AWS API alone, none of the control paths."""
        if environ.get("PATH_INFO", "").startswith(CONTROL):
            return _fail(environ, start_response, 404, "InvalidAction", "Not served to instances.")
        return self(environ, start_response)

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "HTTP_AUTHORIZATION" not in environ:
            return _fail(
                environ,
                start_response,
                403,
                "AccessDenied",
                "Access Denied: the rehearsal serves signed requests only, no anonymous ones and "
                "no presigned URLs.",
            )
        # Read before the lock is taken: a slow upload must not hold up the others.
        _read_body(environ)
        if self.faults.throttled(_action(environ)):
            return _fail(environ, start_response, 503, *throttling(environ))
        try:
            with self.lock:
                self._know_region(region_of(environ["HTTP_AUTHORIZATION"]))
                body = list(self.app(environ, start_response))
                if _mutates(environ):
                    self.store.changed()
        except (NotImplementedError, OperationNotFoundError) as fault:
            return _fail(
                environ,
                start_response,
                400,
                "InvalidAction",
                f"The action is not valid for this web service: {fault}",
            )
        except BotoCoreError as fault:
            return _fail(environ, start_response, 400, "InvalidParameterValue", str(fault))
        except Exception as fault:
            log.exception("%s %s", environ.get("REQUEST_METHOD"), environ.get("PATH_INFO"))
            return _fail(
                environ,
                start_response,
                500,
                "InternalError",
                f"An internal error of the rehearsal's account ({fault!r}); its log has more.",
            )
        return body

    def _know_region(self, region: str) -> None:
        """Have a region's images and their public parameters before anybody asks for them."""
        if region and region not in self._regions and region in ec2_backends[ACCOUNT_ID]:
            backend_of(ACCOUNT_ID, region)
            self.backends()

    def _control(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        call = (environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(CONTROL))
        actions = {
            ("GET", "health"): self._health,
            ("GET", "instances"): self._list_instances,
            ("PUT", "boot"): self._set_boot,
            ("GET", "limits"): self._get_limits,
            ("PUT", "limits"): self._set_limits,
            ("GET", "faults"): self._list_faults,
            ("PUT", "faults"): self._set_faults,
            ("GET", "hub"): self._list_hub,
            ("PUT", "hub"): self._set_hub,
            ("POST", "shutdown"): self._shutdown,
        }
        _read_body(environ)
        action = actions.get(call)
        if action is None:
            return _json(start_response, 404, {"error": f"No control path {call[0]} {call[1]}"})
        try:
            given = json.loads(environ["rehearsal.body"] or b"{}")
        except ValueError:
            return _json(start_response, 400, {"error": "The body is not JSON."})
        return _json(start_response, *action(given))

    def _health(self, _: Any) -> Answer:
        return 200, {"ok": True}

    def _set_boot(self, given: Any) -> Answer:
        enabled = given.get("enabled") if isinstance(given, dict) else None
        if not isinstance(enabled, bool):
            return 400, {"error": 'Expected {"enabled": true} or {"enabled": false}.'}
        if enabled and not self.can_boot:
            return 409, {"error": NO_MACHINE}
        with self.lock:
            self.life.boot = enabled
        return 200, {"enabled": enabled}

    def _get_limits(self, _: Any) -> Answer:
        with self.lock:
            return 200, {
                "regions": [shown_limits(b.region_name, b.limits) for b in self.backends()]
            }

    def _set_limits(self, given: Any) -> Answer:
        region = given.get("region") if isinstance(given, dict) else None
        if not isinstance(region, str) or region not in ec2_backends[ACCOUNT_ID]:
            return 400, {"error": f"No region {region!r}."}
        with self.lock:
            backend = backend_of(ACCOUNT_ID, region)
            limits, wrong = parse_limits(given)
            if limits is None:
                return 400, {"error": wrong}
            backend.limits = limits
            self.store.changed()
            return 200, shown_limits(backend.region_name, limits)

    def _list_faults(self, _: Any) -> Answer:
        return 200, {"faults": self.faults.listed()}

    def _set_faults(self, given: Any) -> Answer:
        faults, wrong = parse(given)
        with self.lock:
            actions = [at_once(f, self.backends(), self.life) for f in faults]
            wrong += [a for a in actions if isinstance(a, str)]
            if wrong:
                return 400, {"error": " ".join(wrong)}
            for action in actions:
                if callable(action):
                    action()
            self.faults.put([f for f, a in zip(faults, actions, strict=True) if a is None])
            self.store.changed()
        return self._list_faults(None)

    def _list_hub(self, _: Any) -> Answer:
        return 200, self.hub.told()

    def _set_hub(self, given: Any) -> Answer:
        wrong = told_to_hub(self.hub, given)
        return (400, {"error": wrong}) if wrong else self._list_hub(None)

    def _shutdown(self, _: Any) -> Answer:
        self.store.save()
        threading.Thread(target=self.stop, name="account-stop").start()
        return 200, {"stopping": True}

    def _list_instances(self, _: Any) -> Answer:
        with self.lock:
            self.life.reconcile()
            return 200, {"instances": self._instances()}

    def _instances(self) -> list[dict[str, Any]]:
        return [
            {
                "id": i.id,
                "name": backend.tags.get(i.id, {}).get("Name", ""),
                "private_ip": i.private_ip_address,
                "vpc": i.vpc_id,
                "region": backend.region_name,
                "state": i.state,
                "machine_state": self.life.machine_of(i).state(i.id),
                "boots": i.boots,
            }
            for backend in self.backends()
            for i in backend.instances()
        ]


def _read_body(environ: WSGIEnvironment) -> None:
    stream = environ["wsgi.input"]
    if environ.get("wsgi.input_terminated"):
        body = stream.read()
        environ["CONTENT_LENGTH"] = str(len(body))
    else:
        body = stream.read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    environ["rehearsal.body"] = body


def _mutates(environ: WSGIEnvironment) -> bool:
    """Whether a request may have changed something; a wrong yes only costs a write."""
    service = service_of(environ.get("HTTP_AUTHORIZATION"))
    if service == "s3":
        return environ["REQUEST_METHOD"] not in ("GET", "HEAD", "OPTIONS")
    return not _action(environ).startswith(READS)


def throttling(environ: WSGIEnvironment) -> tuple[str, str]:
    """Code and message with which a service asks for fewer calls."""
    if service_of(environ.get("HTTP_AUTHORIZATION")) == "s3":
        return "SlowDown", "Please reduce your request rate."
    return "RequestLimitExceeded", "Request limit exceeded."


def _s3_action(environ: WSGIEnvironment) -> str:
    """The action on objects that a request to S3 calls; "" for all others."""
    key = environ.get("PATH_INFO", "").lstrip("/").partition("/")[2]
    if not key:
        listing = "list-type=2" in environ.get("QUERY_STRING", "")
        return "ListObjectsV2" if listing else ""
    words = {"GET": "Get", "PUT": "Put", "HEAD": "Head", "DELETE": "Delete"}
    word = words.get(environ["REQUEST_METHOD"], "")
    return f"{word}Object" if word else ""


def _action(environ: WSGIEnvironment) -> str:
    """The API action that a request calls; "" for services whose paths say it."""
    if service_of(environ.get("HTTP_AUTHORIZATION")) == "s3":
        return _s3_action(environ)
    action = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")[2]
    if not action:
        body: bytes = environ["rehearsal.body"][:4096]
        action = body.partition(b"Action=")[2].partition(b"&")[0].decode(errors="replace")
    return action


def _fail(
    environ: WSGIEnvironment, start_response: StartResponse, status: int, code: str, message: str
) -> Iterable[bytes]:
    service = service_of(environ.get("HTTP_AUTHORIZATION"))
    content_type, body = error_body(service, code, message)
    data = body.encode()
    headers = [("Content-Type", content_type), ("Content-Length", str(len(data)))]
    start_response(f"{status} {code}", headers)
    return [data]


def _json(start_response: StartResponse, status: int, value: dict[str, Any]) -> Iterable[bytes]:
    data = json.dumps(value).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
    start_response(f"{status} {'OK' if status == 200 else 'Error'}", headers)
    return [data]
