"""The provider's own settings: stack config, an explicit `aws.Provider`, the environment."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rehearsal.provider.wire import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

UNDERSTOOD = frozenset(
    {
        "region", "accessKey", "secretKey", "token", "profile", "defaultTags", "ignoreTags",
        "endpoints", "maxRetries", "s3UsePathStyle", "allowedAccountIds", "forbiddenAccountIds",
        "skipCredentialsValidation", "skipMetadataApiCheck", "skipRegionValidation",
        "skipRequestingAccountId",
    }
)  # fmt: skip
"""Settings that are heeded. The wheel knows more; what isn't here is refused, never ignored."""

ENGINE_KEYS = frozenset(
    {"version", "pluginDownloadURL", "__internal", "__pulumi-go-package-version"}
)
REPLACING = frozenset({"region"})
"""Settings whose change makes the engine replace all that the provider made."""


@dataclass(frozen=True)
class ProviderConfig:
    """How to reach AWS and what to put on everything.

    Attributes:
        endpoints: service (`ec2`) -> URL, for services that are not at their usual place.
        max_retries: attempts of one API call after the first.
    """

    region: str
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    profile: str | None = None
    default_tags: Mapping[str, str] = field(default_factory=dict)
    ignored_tags: frozenset[str] = frozenset()
    ignored_tag_prefixes: tuple[str, ...] = ()
    endpoints: Mapping[str, str] = field(default_factory=dict)
    max_retries: int = 4
    path_style: bool = False
    check_account: bool = True
    allowed_accounts: frozenset[str] = frozenset()
    forbidden_accounts: frozenset[str] = frozenset()


class ConfigError(Exception):
    """Settings that can't be used; its text has one line per fault."""


def decode(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with their nested values decoded: the engine sends those as JSON strings."""
    return {key: _decoded(value) for key, value in raw.items() if key not in ENGINE_KEYS}


def faults(settings: Mapping[str, Any], known: frozenset[str]) -> list[tuple[str, str]]:
    """(setting, what is wrong with it) for each setting that can't be heeded."""
    found = []
    for key, value in settings.items():
        if key not in known:
            found.append((key, f"pulumi-aws has no setting {key!r}"))
        elif key not in UNDERSTOOD and value not in (None, "", [], {}, False, "false"):
            found.append((key, f"this provider does not support the setting {key!r}"))
    return found


def parse(settings: Mapping[str, Any], environment: Mapping[str, str]) -> ProviderConfig:
    """The configuration of decoded settings.

    Raises:
        ConfigError: no region is given.
    """
    region = settings.get("region") or environment.get("AWS_REGION")
    region = region or environment.get("AWS_DEFAULT_REGION")
    if not region or region == UNKNOWN:
        msg = (
            "no region: set it with `pulumi config set aws:region us-east-1`, "
            "aws.Provider(region=…) or AWS_REGION"
        )
        raise ConfigError(msg)
    ignored = settings.get("ignoreTags") or {}
    return ProviderConfig(
        region=region,
        access_key=settings.get("accessKey"),
        secret_key=settings.get("secretKey"),
        token=settings.get("token"),
        profile=settings.get("profile"),
        default_tags=(settings.get("defaultTags") or {}).get("tags") or {},
        ignored_tags=frozenset(ignored.get("keys") or ()),
        ignored_tag_prefixes=tuple(ignored.get("keyPrefixes") or ()),
        endpoints=_endpoints(settings.get("endpoints")),
        max_retries=int(settings.get("maxRetries") or 4),
        path_style=_true(settings.get("s3UsePathStyle")),
        check_account=not _true(settings.get("skipCredentialsValidation")),
        allowed_accounts=frozenset(settings.get("allowedAccountIds") or ()),
        forbidden_accounts=frozenset(settings.get("forbiddenAccountIds") or ()),
    )


def environment() -> Mapping[str, str]:
    """The process's environment, which botocore reads as well (AWS_ENDPOINT_URL, AWS_PROFILE …)."""
    return os.environ


def _endpoints(value: Any) -> dict[str, str]:
    groups = value if isinstance(value, list) else [value] if value else []
    return {service: url for group in groups for service, url in group.items() if url}


def _true(value: Any) -> bool:
    return value is True or str(value).lower() == "true"


def _decoded(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
