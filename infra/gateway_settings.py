"""What a user may say about the gateway and the keys of its clients."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, field_validator

from infra import catalog
from infra.group_settings import Count, Section


def _seconds(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*\s*[smh]", text):
        raise ValueError("a duration such as 90s, 30m or 4h")
    return text


class KeySettings(Section):
    """One API key of the endpoint. Its value is made by `pulumi up` and is in no file."""

    name: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$",
            description="who it is for; it is in the access log, the key never is",
        ),
    ]
    expires_at: Annotated[
        str | None, Field(description="refused from then on, e.g. 2027-01-31T00:00:00+00:00")
    ] = None
    models: Annotated[
        tuple[str, ...] | None,
        Field(min_length=1, description="models that it may ask for; all by default"),
    ] = None
    requests_per_minute: Annotated[
        Count | None, Field(description="more are refused with 429; no limit by default")
    ] = None
    rotate: Annotated[
        int, Field(ge=0, description="another number makes a new value; the old one ends at once")
    ] = 0

    @field_validator("expires_at")
    @classmethod
    def _moment(cls, text: str | None) -> str | None:
        if text is None:
            return None
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"a moment such as 2027-01-31T00:00:00+00:00 ({error})") from error
        if moment.tzinfo is None:
            raise ValueError("a moment with its offset, such as 2027-01-31T00:00:00+00:00")
        return text


class GatewaySettings(Section):
    """The node without a GPU that is the endpoint: TLS, keys, router, metrics."""

    enabled: Annotated[
        bool | Literal["auto"],
        Field(
            description="auto: with prefill or decode groups, several replicas, a public endpoint, "
            "`endpoint.keys` or `endpoint.tls`"
        ),
    ] = "auto"
    instance_type: Annotated[str, Field(description="EC2 instance type without a GPU")] = (
        "c7i.xlarge"
    )
    tls: Annotated[bool, Field(description="false: plain HTTP on port 80")] = True
    policy: Annotated[
        Literal["cache_aware", "round_robin", "random", "power_of_two", "consistent_hash"],
        Field(description="how vllm-router picks a group"),
    ] = "cache_aware"
    body_limit_bytes: Annotated[
        int, Field(ge=1024, description="larger requests are refused with 413")
    ] = 16 << 20
    request_timeout: Annotated[str, Field(description="to the first byte of an answer")] = "30m"
    wait: Annotated[
        str, Field(description="how long a request waits for a group that can take it")
    ] = "60s"
    waiting_requests: Annotated[
        Count, Field(description="so many wait at once; more get 503 with Retry-After")
    ] = 256
    retries: Annotated[
        int,
        Field(
            ge=0,
            le=5,
            description="how often a request is sent again where its group died before answering "
            "any of it",
        ),
    ] = 2

    @field_validator("instance_type")
    @classmethod
    def _cpu_type(cls, name: str) -> str:
        if name not in catalog.instance_types() or catalog.instance_type(name).gpu_count:
            raise ValueError("a CPU type of the catalog, such as c7i.xlarge")
        return name

    @field_validator("request_timeout", "wait")
    @classmethod
    def _duration(cls, text: str) -> str:
        return _seconds(text)


def unique_names(keys: tuple[KeySettings, ...]) -> tuple[KeySettings, ...]:
    """The same keys; ValueError where two have one name."""
    names = [key.name for key in keys]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"keys with names of their own; {', '.join(twice)} stands there twice")
    return keys
