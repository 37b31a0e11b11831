"""What a request of the engine asks for: names, differences, replacements. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rehearsal.provider import diff
from rehearsal.provider.resource import Call, Change, Inputs, ProviderError, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rehearsal.provider.schema import Shape
    from rehearsal.provider.wire import Properties


@dataclass(frozen=True)
class Known:
    """A resource type with the shape of its properties."""

    resource: Resource
    shape: Shape


@dataclass(frozen=True)
class Held:
    """A resource that exists while an operation on it goes on."""

    request: Any
    known: Known
    call: Call
    id: str


def change_of(resource: Resource, old: Inputs, new: Inputs, state: Inputs) -> Change:
    """The update that leads from old inputs to new ones."""
    keys = {diff.top(path) for path in diff.changes(old, new, resource.rules)}
    if "region" in keys and (new.get("region") or state.get("region")) == state.get("region"):
        keys.discard("region")
    return Change(old, new, state, frozenset(keys))


def forces(path: str, force_new: frozenset[str]) -> bool:
    """Whether the change of a path (`a[0].b`) replaces the resource."""
    bare = "".join(part.split("]", 1)[-1] for part in path.split("["))
    return any(bare == key or bare.startswith(f"{key}.") for key in force_new) or (
        any(key.startswith(f"{bare}.") for key in force_new)
    )


def deletes_first(resource: Resource, new: Mapping[str, Any]) -> bool:
    """Whether a successor can't exist beside the old one, as where the program gave its name.

    https://github.com/pulumi/pulumi-terraform-bridge: nameRequiresDeleteBeforeReplace
    """
    naming = resource.naming
    if naming is None or diff.DEFAULTS not in new:
        return resource.delete_first
    return naming.key in new and naming.key not in new[diff.DEFAULTS]


def filled(resource: Resource, new: Properties, old: Properties, request: Any) -> Properties:
    """Inputs with defaults and an automatic name, and the list of what was filled in.

    A name that was picked once stays for the resource's life.
    """
    result, added = dict(new), []
    for key, value in resource.defaults.items():
        if key not in new:
            result[key] = value
            added.append(key)
    naming = resource.naming
    if naming and naming.key not in new and (naming.prefix_key or "") not in new:
        picked = naming.key in old and naming.key in (old.get(diff.DEFAULTS) or ())
        result[naming.key] = old[naming.key] if picked else proposed_name(request, resource)
        added.append(naming.key)
    return {**result, diff.DEFAULTS: sorted(added)}


def refuse_unchangeable(resource: Resource, change: Change, what: str) -> None:
    """Refuse an update that this provider would have to leave undone.

    Raises:
        ProviderError: naming the inputs.
    """
    replacing = {diff.top(path) for path in resource.force_new}
    left = change.keys - resource.updatable - replacing - {"tags", "tagsAll"}
    if left:
        names = ", ".join(sorted(left))
        msg = f"updating {what}: this provider can't change {names} in place"
        raise ProviderError(msg)


def proposed_name(request: Any, resource: Resource) -> str:
    """The name of a resource that the program left to Pulumi."""
    naming = resource.naming
    assert naming is not None  # noqa: S101 - the caller asked
    if request.HasField("autonaming"):
        options = request.autonaming
        if options.mode == options.DISABLE:
            msg = f"{title(request)}: automatic names are disabled, and no {naming.key} is given"
            raise ProviderError(msg)
        if options.mode == options.ENFORCE or naming.fits(options.proposed_name):
            return options.proposed_name
    return naming.automatic(name(request), request.randomSeed)


def unsupported(resource: Resource, inputs: Inputs) -> list[tuple[str, str]]:
    """(property, fault) of inputs that pulumi-aws has and this provider refuses."""
    given = sorted(key for key in resource.unsupported & inputs.keys() if inputs[key])
    return [
        (key, f"this provider does not support {key!r} of {resource.pulumi_type}") for key in given
    ]


def looked_into(inputs: Properties) -> Properties:
    """An input that is unknown as a whole can't be looked into."""
    return {key: value for key, value in inputs.items() if key != "tagsAll"}


def token(request: Any) -> str:
    """The resource type of a request; not every request carries it apart."""
    return request.type or request.urn.split("::")[2].rsplit("$", 1)[-1]


def name(request: Any) -> str:
    """The logical name of the resource."""
    return request.name or request.urn.split("::", 3)[-1]


def title(request: Any) -> str:
    """The resource in an error message."""
    return f"{token(request)} {name(request)!r}"
