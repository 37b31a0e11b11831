"""Physical names: what Pulumi picks where the program gave none. Pure."""

from __future__ import annotations

import hashlib
import itertools
import time
from dataclasses import dataclass

_SUFFIX_DIGITS = 7
_COUNTER = itertools.count()


@dataclass(frozen=True)
class Naming:
    """How a resource is named.

    Attributes:
        key: the input that holds the name.
        prefix_key: the input that asks for a prefix and a unique rest instead, if there is one.
        max_length: characters that AWS allows.
        lower_case: whether AWS wants lower case only.
    """

    key: str = "name"
    prefix_key: str | None = "namePrefix"
    max_length: int = 255
    lower_case: bool = False

    def automatic(self, logical_name: str, seed: bytes) -> str:
        """`<logical name>-<7 hex digits>`, shortened to fit; the same seed gives the same name."""
        suffix = "-" + hashlib.sha256(seed).hexdigest()[:_SUFFIX_DIGITS]
        stem = logical_name.lower() if self.lower_case else logical_name
        return stem[: self.max_length - len(suffix)] + suffix

    def fits(self, name: str) -> bool:
        """Whether a name that the engine proposes can be used as it is."""
        return len(name) <= self.max_length and not (self.lower_case and name != name.lower())


def unique_name(prefix: str) -> str:
    """The prefix and 26 digits that rise with time, as Terraform's `name_prefix` makes them."""
    now = time.time_ns()
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(now / 1e9))
    return f"{prefix}{stamp}{now % 10**9 // 10**5:04d}{next(_COUNTER):08x}"
