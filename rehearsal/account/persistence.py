"""The account's state on disk: one pickle of moto's backends, bodies of S3 objects beside it.

Bodies are kept once, by digest, so that a status of 2 KB that changes every few seconds does not
rewrite the gigabytes of a model.
"""

from __future__ import annotations

import copyreg
import hashlib
import importlib
import io
import json
import logging
import os
import pickle
import platform
import sys
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import moto
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from moto.s3.models import FakeKey
from moto.ssm.models import ParameterDict, SimpleSystemManagerBackend

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

log = logging.getLogger(__name__)

SERVICES = ("ec2", "s3", "ssm", "iam", "sts", "elbv2", "kms", "secretsmanager", "acm", "logs")
"""Services whose state is kept; of those only the ones that were used."""
DIGEST = "rehearsal_body_digest"
"""Attribute of moto's S3 objects: where their body is. Kept with them, pickled with them."""
DEBOUNCE_SECONDS = 0.3
"""A burst of requests is written once; a change is on disk half a second after it at the latest."""

UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ImportError,
    OSError,
    ValueError,
    IndexError,
)
"""What reading a damaged state, or one of other classes, may raise."""


class StateError(RuntimeError):
    """The state on disk cannot be read; the message says what to do."""


def versions() -> dict[str, str]:
    """What a state was written by: moto's classes are pickled, so both must be the same."""
    return {"python": platform.python_version(), "moto": moto.__version__}


def tag_table() -> defaultdict[str, dict[str, str]]:
    """SSM's tags of one resource type, as moto makes them with a lambda."""
    return defaultdict(dict)


def _parameters() -> ParameterDict:
    """ParameterDict without its constructor's arguments: pickle fills in its attributes."""
    parameters = ParameterDict.__new__(ParameterDict)
    parameters.default_factory = list
    return parameters


def _der(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),  # as safe as the whole state: a file of mode 0600
    )


def _private_key(der: bytes) -> Any:
    return serialization.load_der_private_key(der, password=None)


def _certificate(der: bytes) -> Any:
    return x509.load_der_x509_certificate(der)


class _Body:
    """Stands in the pickle for the body of an S3 object."""

    def __init__(self, digest: str) -> None:
        self.digest = digest


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, bodies: Path) -> None:
        super().__init__(file, protocol=5)
        self.bodies = bodies
        self.used: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, ParameterDict):
            return _parameters, (), obj.__dict__, None, iter(obj.items())
        if isinstance(obj, FakeKey):
            hidden = ("_value_buffer", "lock")
            state = {k: v for k, v in obj.__dict__.items() if k not in hidden}
            state["value"] = b"" if obj.disposed else _Body(self._digest(obj))
            return copyreg.__newobj__, (FakeKey,), state  # pyright: ignore[reportAttributeAccessIssue]  pickle's own
        if isinstance(obj, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):  # KMS's keys
            return _private_key, (_der(obj),)
        if isinstance(obj, x509.Certificate):  # ACM's
            return _certificate, (obj.public_bytes(serialization.Encoding.DER),)
        return NotImplemented

    def persistent_id(self, obj: Any) -> Any:
        return obj.digest if isinstance(obj, _Body) else None

    def _digest(self, key: FakeKey) -> str:
        """Write the body where it is new. S3 objects never change: a new body is a new key."""
        digest = key.__dict__.get(DIGEST)
        if digest is None:
            value = key.value
            digest = hashlib.sha256(value).hexdigest()
            if not (self.bodies / digest).exists():
                _write(self.bodies / digest, value)
            setattr(key, DIGEST, digest)
        self.used.add(digest)
        return digest


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BufferedIOBase, bodies: Path) -> None:
        super().__init__(file)
        self.bodies = bodies

    def persistent_load(self, pid: Any) -> bytes:
        return (self.bodies / str(pid)).read_bytes()


class Store:
    """Writes the account's state after changes and reads it at start."""

    def __init__(self, folder: Path, lock: AbstractContextManager[Any]) -> None:
        self._path = folder / "state.pickle"
        self._bodies = folder / "objects"
        self._bodies.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = lock
        self._dirty = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="account-store", daemon=True)

    def load(self) -> bool:
        """Put the saved state into moto's backends; False where nothing was saved.

        Raises:
            StateError: written by other versions, or unreadable.
        """
        if not self._path.exists():
            return False
        try:
            with self._path.open("rb") as file:
                _check_versions(json.loads(file.readline()), self._path)
                unpickler = _Unpickler(file, self._bodies)
                saved: dict[str, dict[str, dict[str, Any]]] = unpickler.load()
        except UNREADABLE as fault:
            raise StateError(
                f"The account's state in {self._path} cannot be read ({fault}). The stacks in it "
                "are lost: `make down`, or remove the rehearsal's folder, and start again."
            ) from fault
        for service, accounts in saved.items():
            backends = _backends(service)
            for account, regions in accounts.items():
                for region, backend in regions.items():
                    dict.__setitem__(backends[account], region, backend)
        return True

    def start(self) -> None:
        """Write changes in the background from now on."""
        self._thread.start()

    def changed(self) -> None:
        """Something changed: it will be written within half a second."""
        self._dirty.set()

    def save(self) -> None:
        """Write the state now."""
        buffer = io.BytesIO()
        with self._lock:
            self._dirty.clear()
            buffer.write(json.dumps(versions()).encode() + b"\n")
            pickler = _Pickler(buffer, self._bodies)
            pickler.dump(_everything())
            _write(self._path, buffer.getvalue())
            for body in self._bodies.iterdir():
                if body.name not in pickler.used:
                    body.unlink(missing_ok=True)

    def close(self) -> None:
        """Write what is not written yet and stop."""
        self._stop.set()
        self._dirty.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        self.save()

    def _run(self) -> None:
        while True:
            self._dirty.wait()
            if self._stop.wait(DEBOUNCE_SECONDS):
                return
            try:
                self.save()
            except Exception:
                # The next change tries again; a service whose state cannot be pickled is a fault
                # of ours that the log must show.
                self._dirty.clear()
                log.exception("The account's state could not be written to %s", self._path)


def _check_versions(written_by: dict[str, str], path: Path) -> None:
    if written_by != versions():
        raise StateError(
            f"The account's state in {path} was written by {written_by}, this is {versions()}. "
            "Use the same environment, or `make down` with that one first."
        )


def _backends(service: str) -> Any:
    module = importlib.import_module(f"moto.{service}.models")
    return getattr(module, f"{service}_backends")


def _everything() -> dict[str, dict[str, dict[str, Any]]]:
    saved: dict[str, dict[str, dict[str, Any]]] = {}
    for service in SERVICES:
        if f"moto.{service}.models" in sys.modules:
            saved[service] = {
                account: dict(dict.items(regions))
                for account, regions in _backends(service).items()
            }
    for regions in saved.get("ssm", {}).values():
        for backend in regions.values():
            if isinstance(backend, SimpleSystemManagerBackend):
                # Its factory is a lambda, which pickle refuses.
                backend._resource_tags.default_factory = tag_table  # noqa: SLF001  # moto's lambda
    return saved


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, also when the process is killed in between; readable by us alone."""
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)
