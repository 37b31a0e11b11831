"""The engine's side of the provider: gRPC in, resources and functions out."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf import any_pb2, empty_pb2
from google.rpc import status_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from rehearsal.provider import config as settings
from rehearsal.provider import diff, errors, functions, outputs, tags
from rehearsal.provider.registry import RESOURCES
from rehearsal.provider.requests import (
    Held,
    Known,
    change_of,
    deletes_first,
    filled,
    forces,
    looked_into,
    refuse_unchangeable,
    title,
    token,
    unsupported,
)
from rehearsal.provider.resource import (
    Call,
    CancelledError,
    Inputs,
    ProviderError,
    State,
)
from rehearsal.provider.schema import PROVIDER, Shape, unknown_properties
from rehearsal.provider.session import Session
from rehearsal.provider.wire import UNKNOWN, from_struct, has_unknown, to_struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_KINDS = {
    diff.Kind.ADD: (provider_pb2.PropertyDiff.ADD, provider_pb2.PropertyDiff.ADD_REPLACE),
    diff.Kind.DELETE: (provider_pb2.PropertyDiff.DELETE, provider_pb2.PropertyDiff.DELETE_REPLACE),
    diff.Kind.UPDATE: (provider_pb2.PropertyDiff.UPDATE, provider_pb2.PropertyDiff.UPDATE_REPLACE),
}
_LOOK_UP_SECONDS = 120.0
_VISIBLE_SECONDS = 60.0
"""How long a new resource may take until AWS answers for it everywhere."""


def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what a call raises into the error that the engine shows."""

    @wraps(method)
    def call(self: Provider, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except CancelledError as error:
            context.abort(grpc.StatusCode.CANCELLED, str(error))
        except (ProviderError, settings.ConfigError) as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))

    return call


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """Answers the engine; keeps nothing but its configuration and clients."""

    def __init__(self, version: str, shapes: Callable[[str], Shape]) -> None:
        """Serve as pulumi-aws of a version.

        Args:
            version: that of the wheel.
            shapes: the properties of a resource type, or of the provider itself.
        """
        self._version = version
        self._shapes = shapes
        self._session: Session | None = None
        self._cancelled = threading.Event()

    # The life of the plugin

    def Handshake(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        """Agree on features; secrets are refused, so that the engine marks them itself."""
        del request, context
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=False)

    def Attach(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Accept an engine that found this process already running."""
        del request, context
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say which version this stands for."""
        del request, context
        return plugin_pb2.PluginInfo(version=self._version)

    def Cancel(self, request: Any, context: Any) -> Any:  # noqa: N802
        """End everything that waits."""
        del request, context
        self._cancelled.set()
        return empty_pb2.Empty()

    # Configuration

    def CheckConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuse settings that are unknown or not supported, by name."""
        del context
        raw = from_struct(request.news)
        known = frozenset(self._shapes(PROVIDER).inputs)
        failures = [
            provider_pb2.CheckFailure(property=key, reason=reason)
            for key, reason in settings.faults(settings.decode(raw), known)
        ]
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    def DiffConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        """A new region replaces all; anything else just takes effect."""
        del context
        old, new = from_struct(request.olds), from_struct(request.news)
        changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
        replaced = [] if new.get("region") == UNKNOWN else sorted(settings.REPLACING & set(changed))
        some, none = provider_pb2.DiffResponse.DIFF_SOME, provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(
            changes=some if changed else none, diffs=changed, replaces=replaced
        )

    @guarded
    def Configure(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take the settings and, unless told not to, prove that the credentials work."""
        del context
        config = settings.parse(settings.decode(from_struct(request.args)), settings.environment())
        session = Session(config)
        with _told("checking the AWS credentials (sts:GetCallerIdentity)"):
            session.check_account()
        self._session = session
        return provider_pb2.ConfigureResponse(acceptSecrets=False, supportsPreview=True)

    # Functions

    @guarded
    def Invoke(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer a function such as `getCallerIdentity`."""
        del context
        arguments = from_struct(request.args)
        call = self._call(arguments, _LOOK_UP_SECONDS)
        try:
            with _told(f"calling {request.tok}"):
                answer = functions.invoke(request.tok, arguments, call)
        except functions.InvokeError as error:
            failures = [provider_pb2.CheckFailure(property=error.property, reason=str(error))]
            return provider_pb2.InvokeResponse(failures=failures)
        response = provider_pb2.InvokeResponse()
        getattr(response, "return").CopyFrom(to_struct(answer))  # a keyword of Python's
        return response

    # Resources

    @guarded
    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Fill in names, defaults and tags; refuse what isn't known here."""
        del context
        kind = token(request)
        if kind not in RESOURCES:
            reason = f"this provider has no resource {kind}"
            return provider_pb2.CheckResponse(failures=[provider_pb2.CheckFailure(reason=reason)])
        known = self._known(kind)
        new, old = from_struct(request.news), from_struct(request.olds)
        new.pop(diff.DEFAULTS, None)
        new = {key: value for key, value in new.items() if value is not None}
        for key in known.resource.policies & new.keys():
            if isinstance(new[key], dict):  # pulumi-aws takes a document as well as its JSON
                new[key] = UNKNOWN if has_unknown(new[key]) else json.dumps(new[key])
        failures = [
            provider_pb2.CheckFailure(property=path, reason=f"{kind} has no property {path!r}")
            for path in unknown_properties(looked_into(new), known.shape.inputs)
        ]
        failures += [
            provider_pb2.CheckFailure(property=key, reason=reason)
            for key, reason in (*unsupported(known.resource, new), *known.resource.check(new))
        ]
        inputs = filled(known.resource, new, old, request)
        if "tagsAll" in known.shape.outputs:
            inputs["tagsAll"] = tags.all_tags(new.get("tags"), self._configured().config)
        return provider_pb2.CheckResponse(inputs=to_struct(inputs), failures=failures)

    @guarded
    def Diff(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say what differs, and what of it replaces the resource."""
        del context
        known = self._known(token(request))
        old, new = from_struct(request.old_inputs), from_struct(request.news)
        state = from_struct(request.olds)
        change = change_of(known.resource, old, new, state)
        paths = {
            path: kind
            for path, kind in diff.changes(old, new, known.resource.rules).items()
            if diff.top(path) in change.keys
            and not {path, diff.top(path)}.intersection(request.ignoreChanges)
        }
        forced = known.resource.replaces(
            lambda: self._call(new or old, _LOOK_UP_SECONDS), request.id, change
        )
        replacing = [path for path in paths if forces(path, known.resource.force_new | forced)]
        detailed = {
            path: provider_pb2.PropertyDiff(kind=_KINDS[kind][path in replacing], inputDiff=True)
            for path, kind in paths.items()
        }
        some, none = provider_pb2.DiffResponse.DIFF_SOME, provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(
            changes=some if paths else none,
            diffs=sorted({diff.top(path) for path in paths}),
            replaces=sorted({diff.top(path) for path in replacing}),
            deleteBeforeReplace=bool(replacing) and deletes_first(known.resource, new),
            detailedDiff=detailed,
            hasDetailedDiff=True,
        )

    @guarded
    def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Make a resource and return when it is ready."""
        known, inputs = self._known(token(request)), from_struct(request.properties)
        inputs.pop(diff.DEFAULTS, None)
        if request.preview:
            region = self._region(inputs)
            state = outputs.planned(known.resource, inputs, known.shape, region)
            return provider_pb2.CreateResponse(properties=to_struct(state))
        call = self._call(inputs, request.timeout or known.resource.timeouts.create)
        with _told(f"creating {title(request)}"):
            rid = known.resource.create(call, inputs)
        try:
            with _told(f"creating {title(request)} ({rid})"):
                known.resource.finish(call, rid, inputs)
                state = self._visible(known, call, rid, inputs)
        except (ProviderError, CancelledError) as error:
            self._half_made(context, Held(request, known, call, rid), str(error))
        return provider_pb2.CreateResponse(id=rid, properties=to_struct(state))

    @guarded
    def Read(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Look a resource up: for refresh (what it was is given) or import (only its id is)."""
        del context
        known = self._known(token(request))
        state, old = from_struct(request.properties), from_struct(request.inputs)
        call = self._call({**state, **old}, _LOOK_UP_SECONDS)
        with _told(f"reading {title(request)} ({request.id})"):
            read = known.resource.read(call, request.id, {**state, **old})
        if read is None:
            return provider_pb2.ReadResponse(id="")
        now = self._current(known, call, read, {**state, **old})
        if old:
            inputs = outputs.refreshed_inputs(old, read, now)
        else:
            inputs = outputs.imported_inputs(known.resource, now, known.shape)
            inputs[diff.DEFAULTS] = []
        return provider_pb2.ReadResponse(
            id=request.id, properties=to_struct(now), inputs=to_struct(inputs)
        )

    @guarded
    def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Change a resource in place."""
        known = self._known(token(request))
        resource = known.resource
        old, new = from_struct(request.old_inputs), from_struct(request.news)
        state = from_struct(request.olds)
        new.pop(diff.DEFAULTS, None)
        change = change_of(resource, old, new, state)
        refuse_unchangeable(resource, change, title(request))
        if request.preview:
            planned = {key: value for key, value in state.items() if key not in old or key in new}
            planned.update({key: value for key, value in new.items() if key in known.shape.outputs})
            planned.update(dict.fromkeys(resource.unknown_after(change.keys), UNKNOWN))
            return provider_pb2.UpdateResponse(properties=to_struct(planned))
        call = self._call(new, request.timeout or resource.timeouts.update)
        try:
            with _told(f"updating {title(request)} ({request.id})"):
                if change.keys:
                    resource.update(call, request.id, change)
                # an earlier create may have ended half-way: bring all of it to its end
                resource.finish(call, request.id, new)
                now = self._visible(known, call, request.id, new)
        except (ProviderError, CancelledError) as error:
            self._half_made(context, Held(request, known, call, request.id), str(error))
        return provider_pb2.UpdateResponse(properties=to_struct(now))

    @guarded
    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Delete a resource and return when it is gone."""
        del context
        known, state = self._known(token(request)), from_struct(request.properties)
        state = {**from_struct(request.old_inputs), **state}
        call = self._call(state, request.timeout or known.resource.timeouts.delete)
        with _told(f"deleting {title(request)} ({request.id})"):
            try:
                known.resource.delete(call, request.id, state)
            except Exception as error:
                if not errors.gone(error):
                    raise
        return empty_pb2.Empty()

    # Helpers

    def _known(self, kind: str) -> Known:
        if kind not in RESOURCES:
            msg = f"this provider has no resource {kind}"
            raise ProviderError(msg)
        return Known(RESOURCES[kind], self._shapes(kind))

    def _configured(self) -> Session:
        if self._session is None:
            msg = "the provider was used before it was configured"
            raise ProviderError(msg)
        return self._session

    def _region(self, inputs: Inputs) -> str:
        region = inputs.get("region")
        return region if isinstance(region, str) else self._configured().config.region

    def _call(self, inputs: Inputs, seconds: float) -> Call:
        deadline = time.monotonic() + seconds
        return Call(self._configured(), self._region(inputs), self._cancelled, deadline)

    def _visible(self, known: Known, call: Call, rid: str, inputs: Inputs) -> State:
        until = time.monotonic() + _VISIBLE_SECONDS

        def probe() -> State | None:
            read = known.resource.read(call, rid, inputs)
            if read is None and time.monotonic() > until:
                msg = f"{rid} was made, but AWS does not know it"
                raise ProviderError(msg)
            return read

        read = call.wait(f"{rid} to be visible", probe)
        return self._current(known, call, read, inputs)

    def _current(self, known: Known, call: Call, read: State, before: Inputs) -> State:
        config = self._configured().config
        # order first: a list in another order must not be compared item by item
        read = outputs.ordered(read, before, known.resource)
        return outputs.current(read, before, known.shape, config, call.region)

    def _half_made(self, context: Any, held: Held, reason: str) -> NoReturn:
        """Tell the engine to keep what exists although the operation failed."""
        request, known = held.request, held.known
        news = request.properties if hasattr(request, "properties") else request.news
        before = {key: value for key, value in from_struct(news).items() if key != diff.DEFAULTS}
        state = {key: value for key, value in before.items() if key in known.shape.outputs}
        try:
            read = known.resource.read(held.call, held.id, before)
            state = self._current(known, held.call, read, before) if read else state
        except Exception as error:  # noqa: BLE001 - the first failure is the one to tell
            reason = f"{reason} (and then reading it failed: {error})"
        detail = any_pb2.Any()
        detail.Pack(
            provider_pb2.ErrorResourceInitFailed(
                id=held.id, properties=to_struct(state), inputs=news, reasons=[reason]
            )
        )
        code = grpc.StatusCode.UNKNOWN
        status = status_pb2.Status(code=code.value[0], message=reason, details=[detail])
        metadata = (("grpc-status-details-bin", status.SerializeToString()),)
        context.set_trailing_metadata(metadata)
        context.abort(code, reason)
        raise AssertionError("abort raises")


@contextmanager
def _told(doing: str) -> Iterator[None]:
    """Errors of AWS and of files become sentences that begin with what was being done."""
    try:
        yield
    except functions.InvokeError:
        raise
    except (ProviderError, CancelledError) as error:
        raise type(error)(f"{doing}: {error}") from error
    except Exception as error:
        raise ProviderError(errors.describe(doing, error)) from error
