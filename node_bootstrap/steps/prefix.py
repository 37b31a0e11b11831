"""Weights that lie in S3 already: the node lists the prefix once, then keeps to that list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from node_bootstrap import durable
from node_bootstrap.assignment import WeightFile, Weights
from node_bootstrap.status import NodePhase
from node_bootstrap.steps.base import Check, Frequency, StepError, key_of
from node_bootstrap.steps.weights import Reader, WeightsStep

Lister = Callable[[str, str], tuple[WeightFile, ...]]
"""(bucket, prefix) -> all objects under it, paths below the prefix; StepError when it can't."""


@dataclass(frozen=True)
class Listing:
    """What was under the prefix. key: of the step that listed it."""

    key: str
    files: tuple[WeightFile, ...]


@dataclass(frozen=True)
class PrefixWeightsStep:
    """Fetches all that lies under a prefix.

    The list is made once and kept: what somebody changes in the bucket later must not change the
    weights of a group that serves. list_objects: asks S3, or waits for its list. listing: file that
    keeps it.
    """

    wanted: Weights
    read: Reader
    list_objects: Lister
    ledger: Path
    listing: Path
    needs: tuple[str, ...] = ("hardware",)
    name: str = "weights"
    phase: NodePhase = "weights"
    frequency: Frequency = "change"
    timeout_seconds: float = 4 * 3600

    @property
    def key(self) -> str:
        """Digest of bucket, prefix and folder."""
        return key_of(self.wanted)

    def check(self) -> Check:
        """Compare the folder with the list; S3 is not asked."""
        known = durable.load(self.listing, Listing)
        if known is None or known.key != self.key:
            where = f"s3://{self.wanted.bucket}/{self.wanted.prefix}"
            return Check(done=False, detail=f"{where} is not listed yet")
        return self._files(known.files).check()

    def apply(self, deadline: float) -> None:
        """List where that wasn't done, then fetch what is missing.

        Raises:
            StepError: the prefix can't be listed or holds no model; a file can't be fetched.
        """
        known = durable.load(self.listing, Listing)
        if known is None or known.key != self.key:
            files = self.list_objects(self.wanted.bucket, self.wanted.prefix)
            if not any(f.path == "config.json" for f in files):
                raise StepError(
                    f"s3://{self.wanted.bucket}/{self.wanted.prefix} has {len(files)} objects and "
                    "no config.json: it is no folder of a model; look at model.source"
                )
            known = Listing(self.key, files)
            durable.save(self.listing, known)
        self._files(known.files).apply(deadline)

    def _files(self, files: tuple[WeightFile, ...]) -> WeightsStep:
        return WeightsStep(replace(self.wanted, files=files), self.read, self.ledger)
