"""What a user may say about a stack: every key, its type, its default, and the errors.

Keys that are vLLM's are spelled as vLLM spells them. A file is judged whole: all its faults are
reported in one run, each with the key, what was given and what is allowed.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from infra import catalog
from infra.faults import NAMESPACE, Fault, SettingsError, readable
from infra.gateway_settings import GatewaySettings, KeySettings, unique_names
from infra.group_settings import GroupSettings, Section

if TYPE_CHECKING:
    from collections.abc import Mapping


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


class ModelSettings(Section):
    """The model: the name that clients ask for, and where its files are."""

    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$",
            max_length=120,
            description="what clients ask for; a Hugging Face id where source is hf",
        ),
    ]
    source: Annotated[
        str,
        Field(min_length=1, description="a folder, from the project's root; s3://…; or hf"),
    ]
    revision: Annotated[
        str | None, Field(min_length=1, description="commit on Hugging Face, 40 hex digits")
    ] = None
    config: Annotated[
        str | None,
        Field(min_length=1, description="its config.json, where the files are not here"),
    ] = None


class VllmSettings(Section):
    """The vLLM release, and how the nodes have it."""

    version: Annotated[str, Field(description="release, 0.11.0 to 0.33.0")] = "0.32.0"
    runtime: Annotated[
        Literal["auto", "venv", "container"],
        Field(description="auto: container on GPU types, venv on CPU types"),
    ] = "auto"
    python: Annotated[
        str, Field(pattern=r"^/", description="of the venv: the interpreter that has vLLM")
    ] = "/opt/vllm/bin/python"
    image: Annotated[
        str | None, Field(min_length=1, description="of the container; vLLM's own by default")
    ] = None
    deepep: Annotated[
        Literal["auto", "stock", "efa", "uccl", "none"],
        Field(description="which deep_ep the nodes have: DeepEP, its EFA build, UCCL-EP"),
    ] = "auto"

    @field_validator("version")
    @classmethod
    def _known_release(cls, version: str) -> str:
        try:
            catalog.release(version)
        except catalog.UnknownNameError as error:
            first, *_, last = catalog.release_versions()
            raise ValueError(f"a vLLM release from {first} to {last}") from error
        return version.removeprefix("v")


class NetworkSettings(Section):
    """The VPC that is made, or an existing one; all nodes of a stack share one zone."""

    cidr: Annotated[Cidr, Field(description="of the VPC that is made")] = "10.42.0.0/16"
    zone: Annotated[str, Field(description="availability zone; auto: one that has the types")] = (
        "auto"
    )
    vpc_id: Annotated[
        str | None, Field(pattern=r"^vpc-[0-9a-f]+$", description="an existing VPC")
    ] = None
    subnet_id: Annotated[
        str | None, Field(pattern=r"^subnet-[0-9a-f]+$", description="an existing subnet of it")
    ] = None
    public_subnet_id: Annotated[
        str | None,
        Field(
            pattern=r"^subnet-[0-9a-f]+$",
            description="an existing subnet that the internet reaches, for a public endpoint",
        ),
    ] = None
    nat: Annotated[
        bool | Literal["auto"],
        Field(
            description="a NAT gateway; auto: if software, image or weights come from the internet"
        ),
    ] = "auto"

    @field_validator("public_subnet_id", "subnet_id")
    @classmethod
    def _in_a_vpc_that_is_there(cls, subnet: str | None, info: ValidationInfo) -> str | None:
        if subnet is not None and info.data.get("vpc_id") is None:
            raise ValueError("network.vpc_id beside it: the VPC that it is in")
        return subnet

    @field_validator("nat")
    @classmethod
    def _in_a_vpc_of_its_own(cls, nat: object, info: ValidationInfo) -> object:
        if nat is True and info.data.get("vpc_id") is not None:
            raise ValueError("auto or false in an existing VPC: its routes are its owner's")
        return nat

    @model_validator(mode="after")
    def _where_the_nodes_go(self) -> Self:
        if self.vpc_id is not None and self.subnet_id is None:
            raise ValueError("network.subnet_id beside vpc_id: the subnet that the nodes go to")
        return self

    @field_validator("cidr")
    @classmethod
    def _size_that_ec2_takes(cls, cidr: str) -> str:
        if not 16 <= ipaddress.IPv4Network(cidr).prefixlen <= 28:
            raise ValueError("a network between /16 and /28, the sizes that EC2 takes for a VPC")
        return cidr


class TlsSettings(Section):
    """TLS of the endpoint: a name, and who signs its certificate."""

    domain: Annotated[str, Field(min_length=1, description="name that clients use")]
    issuer: Annotated[
        Literal["acme", "internal"],
        Field(description="the gateway's own authority; `acme`, a public one, is not built yet"),
    ] = "internal"


class EndpointSettings(Section):
    """Who may reach the endpoint. Without CIDRs: the stack's own nodes and port forwards."""

    exposure: Annotated[
        Literal["private", "public"], Field(description="public: with an address of its own")
    ] = "private"
    open_to_the_world: Annotated[
        bool, Field(description="allowed_cidrs may be everybody: the keys alone are in between")
    ] = False
    allowed_cidrs: Annotated[tuple[Cidr, ...], Field(description="who may connect")] = ()
    tls: TlsSettings | None = None
    keys: Annotated[
        tuple[KeySettings, ...],
        AfterValidator(unique_names),
        Field(description="API keys of the gateway; one named `default` where there are none"),
    ] = ()
    load_balancer: Annotated[
        bool | Literal["auto"], Field(description="auto: where the endpoint is public")
    ] = "auto"
    certificate_arn: Annotated[
        str | None,
        Field(
            pattern=r"^arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/[0-9a-f-]+$",
            description="of ACM, in the stack's region: the load balancer's",
        ),
    ] = None
    domain: Annotated[
        str | None,
        Field(min_length=1, description="of the certificate; a CNAME to `endpoint_dns_name`"),
    ] = None

    @field_validator("allowed_cidrs")
    @classmethod
    def _not_the_world(cls, cidrs: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        everybody = any(ipaddress.IPv4Network(c).prefixlen == 0 for c in cidrs)
        if everybody and not info.data.get("open_to_the_world"):
            raise ValueError(
                "networks that you know; 0.0.0.0/0 is everybody, for which open_to_the_world "
                "has to be true"
            )
        return cidrs

    @property
    def balanced(self) -> bool:
        """Whether a load balancer stands in front."""
        return self.exposure == "public" if self.load_balancer == "auto" else self.load_balancer


class CapacitySettings(Section):
    """Where the instances come from."""

    kind: Annotated[
        Literal["on-demand", "reserve", "reservation", "capacity-block", "spot"],
        Field(description="reserve: make a reservation first, so that a launch is all or nothing"),
    ] = "on-demand"
    id: Annotated[
        str | None,
        Field(pattern=r"^cr-[0-9a-f]+$", description="of the reservation or Capacity Block"),
    ] = None
    placement_group: Annotated[
        str | None, Field(min_length=1, description="that the named reservation is in, if any")
    ] = None

    @field_validator("placement_group")
    @classmethod
    def _of_a_reservation(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is not None and info.data.get("kind") != "reservation":
            raise ValueError("no group beside another kind than reservation: the stack makes it")
        return name


class TransferFloors(Section):
    """Floors of the measured transfer in GB/s (10^9 bytes), instead of the type's own."""

    all_reduce: Annotated[float | None, Field(gt=0, description="bus bandwidth")] = None
    all_to_all: Annotated[float | None, Field(gt=0, description="that one node sends")] = None
    nixl_dram: Annotated[float | None, Field(gt=0, description="host memory, node to node")] = None
    nixl_vram: Annotated[float | None, Field(gt=0, description="GPU memory, node to node")] = None


class ChecksSettings(Section):
    """What the checks may leave out, and what nodes check before vLLM starts."""

    suppress: Annotated[
        tuple[str, ...], Field(description="codes of findings that are known and accepted")
    ] = ()
    transfer: Annotated[
        Literal["auto", "require", "measure", "off"],
        Field(description="a measured transfer between nodes; auto: required where EP crosses EFA"),
    ] = "auto"
    transfer_floors: Annotated[
        TransferFloors | None, Field(description="GB/s below which it goes a wrong way")
    ] = None
    dcgm_level: Annotated[
        int, Field(ge=0, le=2, description="DCGM's diagnosis of GPUs before serving; 0: none")
    ] = 0


class Settings(Section):
    """All that a stack's config may hold under `moe-serving:`."""

    model: ModelSettings
    vllm: VllmSettings = VllmSettings()
    groups: Annotated[dict[str, GroupSettings], Field(min_length=1, description="name -> group")]
    capacity: CapacitySettings = CapacitySettings()
    network: NetworkSettings = NetworkSettings()
    endpoint: EndpointSettings = EndpointSettings()
    gateway: GatewaySettings = GatewaySettings()
    checks: ChecksSettings = ChecksSettings()
    ami: Annotated[
        str | None,
        Field(
            pattern=r"^ami-([0-9a-f]{8}|[0-9a-f]{17})$",
            description="image of the nodes that serve; `moe bake` makes one",
        ),
    ] = None
    ready_timeout: Annotated[
        Duration, Field(description="how long an update waits for the endpoint's answer")
    ] = "30m"
    ttl: Annotated[
        Duration | None, Field(description="the stack's nodes end by themselves after this")
    ] = None
    huggingface_token: Annotated[
        bool,
        Field(
            description="a token that may read the model, which nobody but the node that copies it "
            "sees: `pulumi config set --secret moe-serving:huggingface_token`"
        ),
    ] = False
    tags: Annotated[
        dict[str, str],
        Field(default_factory=dict, description="AWS tags of everything that is made"),
    ]

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
    try:
        # Through JSON: strict mode then takes a list for a tuple, and still no "2" for a 2.
        settings = Settings.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        raise SettingsError(faults + readable(error, Settings)) from error
    if faults:
        raise SettingsError(faults)
    return settings


def stack_name_faults(stack: str) -> list[Fault]:
    """What keeps a stack's name from being part of an S3 bucket's name (63 characters, DNS)."""
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,36}[a-z0-9])?", stack):
        return []
    wanted = "lower-case letters, digits and dashes, up to 38 characters"
    sentence = f"stack {stack!r}: the name is part of the bucket's name; wanted {wanted}"
    return [Fault(sentence, "SETTINGS_STACK_NAME")]
