"""What each kind of resource says about itself, and what it is given to work with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rehearsal.provider.diff import Rules

if TYPE_CHECKING:
    import threading

    from rehearsal.provider.naming import Naming
    from rehearsal.provider.session import Session

T = TypeVar("T")
Inputs = Mapping[str, Any]
State = dict[str, Any]

MINUTE = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 2.0


class CancelledError(Exception):
    """The engine asked to stop while something was waited for."""


class ProviderError(Exception):
    """What went wrong, in words for the person at the keyboard."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds that an operation may take where the program says nothing else."""

    create: float = 10 * MINUTE
    update: float = 10 * MINUTE
    delete: float = 20 * MINUTE


@dataclass(frozen=True)
class Call:
    """One operation on one resource: clients, identity, and how long it may wait."""

    session: Session
    region: str
    cancelled: threading.Event
    deadline: float = field(default_factory=lambda: time.monotonic() + 10 * MINUTE)

    def client(self, service: str) -> Any:
        """The client of a service in this resource's region."""
        return self.session.client(service, self.region)

    def arn(self, service: str, resource: str) -> str:
        """The ARN of something in this account and region."""
        partition = self.session.partition(self.region)
        return f"arn:{partition}:{service}:{self.region}:{self.session.account_id}:{resource}"

    def wait(self, what: str, probe: Callable[[], T | None]) -> T:
        """Ask again and again until the probe has an answer, and return it.

        Args:
            what: completes "while waiting for …" in the error.
            probe: returns None as long as there is nothing to return.

        Raises:
            ProviderError: the operation's time is over.
            CancelledError: the engine asked to stop.
        """
        pause = _FIRST_PAUSE
        while True:
            answer = probe()
            if answer is not None:
                return answer
            self._sleep(pause, what)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def retry(self, do: Callable[[], T], on: Callable[[Exception], bool], seconds: float) -> T:
        """Do something that AWS refuses until an earlier change has reached all of it.

        Args:
            do: the call.
            on: whether an error is of that passing kind.
            seconds: how long to go on at most; the operation's own time limit holds as well.
        """
        until = min(time.monotonic() + seconds, self.deadline)
        pause = _FIRST_PAUSE
        while True:
            try:
                return do()
            except Exception as error:
                if not on(error) or time.monotonic() + pause > until:
                    raise
                self._sleep(pause, str(error))
                pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _sleep(self, seconds: float, what: str) -> None:
        if time.monotonic() + seconds > self.deadline:
            msg = f"time is over while waiting for {what}"
            raise ProviderError(msg)
        if self.cancelled.wait(seconds):
            msg = f"cancelled while waiting for {what}"
            raise CancelledError(msg)


class Resource:
    """One resource type: what its properties mean, and the API calls behind it.

    Class attributes:
        pulumi_type: pulumi's type token.
        force_new: paths (lists without their index) whose change replaces the resource.
        computed: optional inputs that AWS fills in.
        sets: lists without an order.
        policies: inputs that hold a JSON document.
        defaults: inputs that the provider fills in, as the real one's schema does.
        naming: how a name is picked; None for what has none.
        updatable: inputs that `update` or `finish` bring up to date; tags always are.
        not_imported: inputs that an import leaves out, since another one says the same.
        delete_first: a successor can't exist beside the old one.
        unsupported: inputs of pulumi-aws that this provider refuses rather than ignores.
    """

    pulumi_type: ClassVar[str]
    force_new: ClassVar[frozenset[str]] = frozenset()
    computed: ClassVar[frozenset[str]] = frozenset()
    sets: ClassVar[frozenset[str]] = frozenset()
    policies: ClassVar[frozenset[str]] = frozenset()
    defaults: ClassVar[Mapping[str, Any]] = {}
    naming: ClassVar[Naming | None] = None
    updatable: ClassVar[frozenset[str]] = frozenset()
    not_imported: ClassVar[frozenset[str]] = frozenset()
    delete_first: ClassVar[bool] = False
    unsupported: ClassVar[frozenset[str]] = frozenset()
    timeouts: ClassVar[Timeouts] = Timeouts()

    def check(self, inputs: Inputs) -> list[tuple[str, str]]:
        """(property, fault) for inputs that can't go together. Says nothing about EC2's rules."""
        del inputs
        return []

    def create(self, call: Call, inputs: Inputs) -> str:
        """Make it, and return its id as soon as it exists."""
        raise NotImplementedError

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        """What follows once it exists: settings that take a call of their own, and waiting."""

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        """All properties that AWS answers (None: answered, and empty); None where it is gone.

        Args:
            call: the operation.
            rid: its id.
            known: last known properties; empty for an import.
        """
        raise NotImplementedError

    def update(self, call: Call, rid: str, change: Change) -> None:
        """Change it in place."""
        raise NotImplementedError

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        """Delete it and wait until it is gone; what is gone already is no error."""
        raise NotImplementedError

    def unknown_after(self, changed: Iterable[str]) -> frozenset[str]:
        """Outputs that an update of these inputs changes in a way known only afterwards."""
        del changed
        return frozenset()

    def replaces(self, call: Callable[[], Call], rid: str, change: Change) -> frozenset[str]:
        """Changed inputs outside `force_new` that replace it as things are."""
        del call, rid, change
        return frozenset()

    @property
    def rules(self) -> Rules:
        """How its properties compare."""
        return Rules(self.computed, self.sets, self.policies)


@dataclass(frozen=True)
class Change:
    """An update: inputs before and after, outputs so far, and the inputs that differ."""

    old: Inputs
    new: Inputs
    state: Inputs
    keys: frozenset[str]

    def any(self, *keys: str) -> bool:
        """Whether one of these inputs differs."""
        return not self.keys.isdisjoint(keys)
