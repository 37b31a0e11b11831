"""Where things lie on a node; under another root in tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """The files and folders of a node. `root` is `/` on a real one."""

    root: Path = Path("/")

    @property
    def config(self) -> Path:
        """Bucket, node and region, from user data."""
        return self.root / "etc/moe/node.json"

    @property
    def fetcher(self) -> Path:
        """The program that brings the archive."""
        return self.root / "opt/moe/fetch.py"

    @property
    def current(self) -> Path:
        """Link to the folder of the archive in use; the folder is named after its SHA-256."""
        return self.root / "opt/moe/current"

    @property
    def state(self) -> Path:
        """What the agent remembers."""
        return self.root / "var/lib/moe"

    @property
    def gate(self) -> Path:
        """What the hardware gate found and did."""
        return self.state / "gate.json"

    @property
    def backend(self) -> Path:
        """Which all2all backend was decided on, and why."""
        return self.state / "backend.json"

    @property
    def transfer(self) -> Path:
        """The program that measures the transfer between nodes, and what it said last."""
        return self.state / "transfer"

    @property
    def installers(self) -> Path:
        """Scripts that installed something, as they ran."""
        return self.state / "installers"

    @property
    def cache_seed(self) -> Path:
        """Cache of vLLM as the image brings it."""
        return self.root / "opt/vllm/cache"

    @property
    def cache(self) -> Path:
        """Cache of vLLM on this node (VLLM_CACHE_ROOT)."""
        return self.state / "vllm-cache"

    @property
    def kernels(self) -> Path:
        """What became of the compiled kernels that others left.

        On the disks of the cache, which are empty after a stop.
        """
        return self.state / "build/kernels.json"

    @property
    def role_env(self) -> Path:
        """Environment of the role, secrets included: only root reads it."""
        return self.root / "etc/moe/role.env"

    @property
    def role_unit(self) -> Path:
        """The role's systemd unit."""
        return self.root / "etc/systemd/system/moe-role.service"
