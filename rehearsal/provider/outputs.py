"""From what AWS answers to the properties that the engine keeps. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rehearsal.provider import diff
from rehearsal.provider.tags import split
from rehearsal.provider.wire import UNKNOWN

if TYPE_CHECKING:
    from rehearsal.provider.config import ProviderConfig
    from rehearsal.provider.resource import Inputs, Resource, State
    from rehearsal.provider.schema import Shape

_FREE_MAPS = ("tags", "tagsAll", "metadata")
"""Maps whose keys are the user's: one more on AWS's side is drift, not a default of AWS's."""


def current(read: State, known: Inputs, shape: Shape, config: ProviderConfig, region: str) -> State:
    """Properties as the engine keeps them: what AWS answered over what only the program knows."""
    state = {key: value for key, value in known.items() if key in shape.outputs}
    state.update({key: value for key, value in read.items() if key != "tagsAll"})
    if "tagsAll" in shape.outputs and "tagsAll" in read:
        own, everything = split(read["tagsAll"] or {}, known.get("tags"), config)
        state["tags"], state["tagsAll"] = own or None, everything
    if "region" in shape.outputs:
        state["region"] = read.get("region") or region
    for key, value in state.items():
        if key in known:
            state[key] = settled(key, known[key], value, cut=False)
    return {
        key: value for key, value in state.items() if value is not None and key in shape.outputs
    }


def ordered(state: State, known: Inputs, resource: Resource) -> State:
    """Sets and policy documents as the program spelled them, where they say the same."""
    kept = {
        key: known[key]
        for key in (resource.sets | resource.policies) & state.keys() & known.keys()
        if diff.same(key, known[key], state[key], resource.rules)
    }
    return {**state, **kept}


def refreshed_inputs(old: Inputs, read: State, state: State) -> State:
    """The inputs that would lead to what AWS has now, for those that the program gave."""
    inputs = {}
    for key, value in old.items():
        answered = key in read or key in ("tags", "tagsAll")
        if key == diff.DEFAULTS or not answered:
            inputs[key] = value
        elif state.get(key) is not None:
            inputs[key] = settled(key, value, state[key])
        elif value in (None, "", [], {}, False):
            inputs[key] = value
    return inputs


def imported_inputs(resource: Resource, state: State, shape: Shape) -> State:
    """The inputs of something that was found, for a program that is to own it."""
    inputs = {
        key: value
        for key, value in state.items()
        if key in shape.inputs
        and key not in resource.not_imported
        and key != "region"
        and value not in ("", [], {})
    }
    inputs |= {key: value for key, value in resource.defaults.items() if key not in inputs}
    if "tagsAll" in state:
        inputs["tagsAll"] = state["tagsAll"]
    return inputs


def planned(resource: Resource, inputs: Inputs, shape: Shape, region: str) -> State:
    """Properties of something that is to be made: what only AWS can say is unknown."""
    state = {key: UNKNOWN for key in shape.outputs if key not in shape.inputs}
    state.update({key: UNKNOWN for key in resource.computed if key in shape.outputs})
    if "region" in shape.outputs:
        state["region"] = region
    naming = resource.naming
    if naming and naming.key not in inputs:
        state[naming.key] = UNKNOWN
    return {**state, **{key: value for key, value in inputs.items() if key in shape.outputs}}


def settled(key: str, wanted: Any, found: Any, *, cut: bool = True) -> Any:
    """What was found, spelled as it was asked for where both say the same (`true` for "true").

    Args:
        key: the property, since the keys of tags are the user's own.
        wanted: what the program or an earlier state says.
        found: what AWS says.
        cut: leave out fields that nobody asked for; they are AWS's defaults, no difference.
    """
    if isinstance(wanted, Mapping) and isinstance(found, Mapping) and key not in _FREE_MAPS:
        both = {
            name: settled(name, value, found.get(name), cut=cut)
            for name, value in wanted.items()
            if found.get(name) is not None or value in _NOTHING
        }
        return both if cut else {**found, **both}
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = zip(wanted, found, strict=True)
        return [settled(key, one, other, cut=cut) for one, other in pairs]
    if found is None:
        return wanted
    return wanted if _spelled(wanted) == _spelled(found) else found


_NOTHING: tuple[Any, ...] = (None, "", [], {}, False, "false")


def _spelled(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool | str | int | float) else value
