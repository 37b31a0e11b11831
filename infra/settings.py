"""What a user may say about a stack: every key, its type, its default, and the errors.

Keys that are vLLM's are spelled as vLLM spells them. A file is judged whole: all its faults are
reported in one run, each with the key, what was given and what is allowed.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from infra import catalog
from infra.faults import NAMESPACE, SettingsError, not_built_faults, readable

Count = Annotated[int, Field(ge=1)]


def _duration_seconds(text: str) -> str:
    seconds(text)
    return text


def _network(text: str) -> str:
    try:
        ipaddress.IPv4Network(text)
    except ValueError as error:
        raise ValueError(f"an IPv4 network such as 10.42.0.0/16 ({error})") from error
    return text


Duration = Annotated[str, AfterValidator(_duration_seconds)]
Cidr = Annotated[str, AfterValidator(_network)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSettings(_Section):
    """The model: the name that clients ask for, and where its files are."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=120)]
    source: Annotated[str, Field(min_length=1, description="a folder, from the project's root")]


class VllmSettings(_Section):
    """The vLLM release and the Python that has it on the nodes."""

    version: Literal["0.32.0"] = "0.32.0"
    runtime: Literal["venv"] = "venv"
    python: Annotated[str, Field(pattern=r"^/")] = "/opt/vllm/bin/python"


class GroupSettings(_Section):
    """One group: an engine of one primary and its headless nodes, `replicas` times."""

    role: Literal["serve"] = "serve"
    instance_type: str
    nodes: Count = 1
    replicas: Count = 1
    tensor_parallel_size: Literal[1] = 1
    data_parallel_size_local: Count = 1
    enable_expert_parallel: bool = True
    all2all_backend: Literal["auto", "allgather_reducescatter"] = "auto"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_model_len: Count | None = None
    max_num_batched_tokens: Count | None = None
    max_num_seqs: Count | None = None
    kv_cache_memory_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    enforce_eager: Literal[True] = True
    extra_args: tuple[str, ...] = ()
    env: dict[str, str] = {}

    @field_validator("instance_type")
    @classmethod
    def _known_cpu_type(cls, name: str) -> str:
        try:
            found = catalog.instance_type(name)
        except catalog.UnknownNameError as error:
            raise ValueError(f"an EC2 instance type of the catalog: {error}") from error
        if found.gpu_count:
            raise ValueError("a CPU type such as c7i.large: GPU types are not built yet")
        if found.architecture != "x86_64":
            raise ValueError("a type with x86_64 processors: the node image is built for those")
        return name

    @field_validator("extra_args")
    @classmethod
    def _nothing_the_plan_owns(cls, args: tuple[str, ...]) -> tuple[str, ...]:
        owned = sorted({a.split("=")[0] for a in args} & PLANNED_FLAGS)
        if owned:
            raise ValueError(f"vLLM flags that the plan doesn't set itself; it sets {owned}")
        return args


PLANNED_FLAGS = frozenset(
    {
        "--host", "--port", "--headless", "--api-server-count", "--api-key", "--served-model-name",
        "--data-parallel-size", "-dp", "--data-parallel-size-local", "-dpl",
        "--data-parallel-start-rank", "-dpr", "--data-parallel-address", "-dpa",
        "--data-parallel-rpc-port", "-dpp", "--tensor-parallel-size", "-tp",
        "--enable-expert-parallel", "-ep", "--all2all-backend", "--distributed-executor-backend",
        "--dtype", "--max-model-len", "--max-num-batched-tokens", "--max-num-seqs",
        "--kv-cache-memory-bytes", "--enforce-eager",
    }
)  # fmt: skip
"""Flags that topology and settings decide: given twice, the last one would win unseen."""


class NetworkSettings(_Section):
    """The VPC that is made, and the zone of its subnet: all nodes of a stack share one zone."""

    cidr: Cidr = "10.42.0.0/16"
    zone: str = "auto"

    @field_validator("cidr")
    @classmethod
    def _size_that_ec2_takes(cls, cidr: str) -> str:
        if not 16 <= ipaddress.IPv4Network(cidr).prefixlen <= 28:
            raise ValueError("a network between /16 and /28, the sizes that EC2 takes for a VPC")
        return cidr


class EndpointSettings(_Section):
    """Who may reach the endpoint. Without CIDRs: the stack's own nodes and port forwards."""

    exposure: Literal["private"] = "private"
    allowed_cidrs: tuple[Cidr, ...] = ()

    @field_validator("allowed_cidrs")
    @classmethod
    def _not_the_world(cls, cidrs: tuple[str, ...]) -> tuple[str, ...]:
        if any(ipaddress.IPv4Network(c).prefixlen == 0 for c in cidrs):
            raise ValueError("networks that you know; 0.0.0.0/0 is everybody")
        return cidrs


class Settings(_Section):
    """All that a stack's config may hold under `moe-serving:`."""

    model: ModelSettings
    vllm: VllmSettings = VllmSettings()
    groups: Annotated[dict[str, GroupSettings], Field(min_length=1)]
    network: NetworkSettings = NetworkSettings()
    endpoint: EndpointSettings = EndpointSettings()
    ami: Annotated[str, Field(pattern=r"^ami-([0-9a-f]{8}|[0-9a-f]{17})$")] | None = None
    ready_timeout: Duration = "30m"
    tags: dict[str, str] = {}

    @field_validator("groups")
    @classmethod
    def _names_make_node_names(cls, groups: dict[str, GroupSettings]) -> dict[str, GroupSettings]:
        for name in groups:
            if not re.fullmatch(r"[a-z][a-z0-9-]{0,23}", name) or re.search(r"-(\d+)?$", name):
                raise ValueError(
                    f"names of lower-case letters, digits and dashes, up to 24 characters, "
                    f"not ending in a dash or a dash and digits; {name!r} is not one"
                )
        return groups

    @field_validator("tags")
    @classmethod
    def _tags_of_your_own(cls, tags: dict[str, str]) -> dict[str, str]:
        taken = sorted(k for k in tags if k.startswith(("aws:", f"{NAMESPACE}:")) or k == "Name")
        if taken:
            raise ValueError(f"keys other than Name, aws:… and {NAMESPACE}:…; {taken} are taken")
        return tags

    @property
    def ready_timeout_seconds(self) -> float:
        """How long an update waits for the endpoint to answer."""
        return seconds(self.ready_timeout)


def seconds(duration: str) -> float:
    """Seconds of `90s`, `30m`, `4h`; ValueError otherwise."""
    match = re.fullmatch(r"(\d+)\s*([smh])", duration)
    if not match or int(match[1]) == 0:
        raise ValueError("a duration such as 90s, 30m or 4h")
    return float(int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]])


def from_mapping(data: Mapping[str, Any], stack: str) -> Settings:
    """Judge a stack's settings.

    Args:
        data: key (without `moe-serving:`) -> value, as YAML or JSON gave it.
        stack: name of the stack; it becomes part of the bucket's name.

    Raises:
        SettingsError: with all faults at once.
    """
    faults = stack_name_faults(stack)
    unbuilt, rest = not_built_faults(data)
    faults += unbuilt
    try:
        # Through JSON: strict mode then takes a list for a tuple, and still no "2" for a 2.
        settings = Settings.model_validate_json(json.dumps(rest, default=str))
    except ValidationError as error:
        raise SettingsError(faults + readable(error, Settings)) from error
    if faults:
        raise SettingsError(faults)
    return settings


def stack_name_faults(stack: str) -> list[str]:
    """What keeps a stack's name from being part of an S3 bucket's name (63 characters, DNS)."""
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,36}[a-z0-9])?", stack):
        return []
    wanted = "lower-case letters, digits and dashes, up to 38 characters"
    return [f"stack {stack!r}: the name is part of the bucket's name; wanted {wanted}"]
