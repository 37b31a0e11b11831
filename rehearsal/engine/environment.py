"""The environment that points Pulumi and whatever speaks AWS at a rehearsal, nowhere else."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rehearsal.engine.build import Engine
from rehearsal.paths import Home

FOREIGN_VARIABLES = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "PULUMI_ACCESS_TOKEN",
    "PULUMI_CONFIG_PASSPHRASE",
    "PULUMI_STACK",
    "VIRTUAL_ENV",
)
"""What a person's shell may hold that would lead past the rehearsal: the passphrase itself wins
over its file, a session token makes the rehearsal's keys invalid, PULUMI_STACK names another stack.
"""
FOREIGN_PREFIXES = ("AWS_ENDPOINT_URL_",)
"""An endpoint of one service wins over AWS_ENDPOINT_URL: it would be the real one."""


@dataclass(frozen=True)
class Endpoint:
    """Where the rehearsal's account is reached and how, as its endpoint.json says.

    The secret key opens nothing but this account; it stays out of logs and argv all the same.
    """

    url: str
    region: str
    access_key_id: str
    secret_access_key: str
    pid: int

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, {self.region!r}, pid={self.pid})"


def read_endpoint(home: Home) -> Endpoint | None:
    """Return the account's endpoint, or None where no account was ever started."""
    file = home.account / "endpoint.json"
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    return Endpoint(
        url=found["url"],
        region=found["region"],
        access_key_id=found["access_key_id"],
        secret_access_key=found["secret_access_key"],
        pid=int(found["pid"]),
    )


def environment(home: Home, endpoint: Endpoint, engine: Engine | None) -> dict[str, str]:
    """Return the variables of a rehearsal; the rest of the environment stays as it is.

    Makes Pulumi's folders and the passphrase file (0600) at its first call.

    Args:
        home: the rehearsal; Pulumi's home, state and passphrase lie in it.
        endpoint: the account.
        engine: the CLI whose folder comes first on PATH; None leaves it out.
    """
    for folder in (home.pulumi_home, home.pulumi_state):
        folder.mkdir(parents=True, exist_ok=True)
    first_on_path = [str(Path(sys.executable).parent)]
    if engine is not None:
        first_on_path.insert(0, str(engine.pulumi.parent))
    return {
        "PULUMI_HOME": str(home.pulumi_home),
        # Without metadata: each state file would have a second one (.attrs) that isn't written in
        # one step, and an engine killed in between leaves a state that no command can load.
        "PULUMI_BACKEND_URL": f"file://{home.pulumi_state.resolve()}?metadata=skip",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(_passphrase_file(home)),
        # with these two, no request leaves the machine
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "MOE_REHEARSAL_PYTHON": sys.executable,
        "AWS_ENDPOINT_URL": endpoint.url,
        "AWS_REGION": endpoint.region,
        "AWS_DEFAULT_REGION": endpoint.region,
        "AWS_ACCESS_KEY_ID": endpoint.access_key_id,
        "AWS_SECRET_ACCESS_KEY": endpoint.secret_access_key,
        # a person's own profiles may assume roles or name endpoints
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        **_without_proxy(os.environ),
        "PATH": _put_first(first_on_path, os.environ.get("PATH", "")),
    }


def foreign_variables(given: Mapping[str, str]) -> list[str]:
    """Return the names set in an environment that would lead past the rehearsal."""
    return sorted(
        name for name in given if name in FOREIGN_VARIABLES or name.startswith(FOREIGN_PREFIXES)
    )


def for_child(given: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """Return a child process's environment: what is given, less what leads past the rehearsal.

    Args:
        given: usually os.environ.
        added: what `environment` returned.
    """
    foreign = foreign_variables(given)
    return {**{name: value for name, value in given.items() if name not in foreign}, **added}


def _passphrase_file(home: Home) -> Path:
    file = home.root / "pulumi" / "passphrase"
    if not file.exists():
        # written aside and moved: an empty passphrase file would lock a stack's secrets for good
        draft = file.with_suffix(f".{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(secrets.token_urlsafe(32))
        draft.rename(file)
    return file.resolve()


def _without_proxy(given: Mapping[str, str]) -> dict[str, str]:
    """Keep loopback from going through a proxy: boto3 and gRPC would send even that there."""
    if not any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in given):
        return {}
    excepted = given.get("no_proxy") or given.get("NO_PROXY") or ""
    names = [name for name in excepted.split(",") if name]
    value = ",".join(dict.fromkeys([*names, "127.0.0.1", "localhost"]))
    return {"NO_PROXY": value, "no_proxy": value}


def _put_first(folders: list[str], path: str) -> str:
    rest = [folder for folder in path.split(os.pathsep) if folder and folder not in folders]
    return os.pathsep.join([*folders, *rest])
