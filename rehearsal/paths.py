"""Where the rehearsal keeps what it makes: one cache for the machine, one folder per checkout."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def cache_root() -> Path:
    """The cache folder of all checkouts: what is in it is keyed by what it was built from."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "moe-serving"


@dataclass(frozen=True)
class Home:
    """The folder of one rehearsal: account, instances, Pulumi's home and state. Ends with it."""

    root: Path

    @property
    def account(self) -> Path:
        """State, log and endpoint of the account's process."""
        return self.root / "account"

    @property
    def instances(self) -> Path:
        """One folder per instance: disk, console log, how it ended."""
        return self.root / "instances"

    @property
    def images(self) -> Path:
        """One folder per image that was made from an instance."""
        return self.root / "images"

    @property
    def pulumi_home(self) -> Path:
        """PULUMI_HOME: plugins and selected stack; the user's own stays untouched."""
        return self.root / "pulumi" / "home"

    @property
    def pulumi_state(self) -> Path:
        """The file backend."""
        return self.root / "pulumi" / "state"

    @property
    def tag(self) -> str:
        """Six hex digits that are in the name of all that this rehearsal adds to the machine."""
        return hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:6]


def home() -> Home:
    """The rehearsal of this checkout, or of MOE_REHEARSAL_DIR where that is set."""
    return Home(Path(os.environ.get("MOE_REHEARSAL_DIR") or CHECKOUT / ".rehearsal"))
