"""Which provider named `aws` a rehearsal's Pulumi finds: the rehearsal's, or the real one."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import resources
from pathlib import Path
from typing import Literal

from rehearsal.driver.errors import DriverError
from rehearsal.paths import Home
from rehearsal.provider.install import install

ProviderChoice = Literal["ours", "real"]


def use(choice: ProviderChoice, home: Home) -> None:
    """Put the chosen provider where Pulumi looks for its plugins.

    Raises:
        DriverError: the real one is asked for and isn't installed.
    """
    version = wanted_version()
    folder = home.pulumi_home / "plugins" / f"resource-aws-v{version}"
    # a link to the real plugin must go before ours is written: it would be written into the real
    if folder.is_symlink():
        folder.unlink()
    if choice == "ours":
        install(home.pulumi_home, Path(sys.executable))
        return
    real = installed_real(version)
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(real, target_is_directory=True)


def wanted_version() -> str:
    """Return the plugin version that the installed pulumi-aws package asks for."""
    found = json.loads(resources.files("pulumi_aws").joinpath("pulumi-plugin.json").read_text())
    return str(found["version"]).lstrip("v")


def installed_real(version: str) -> Path:
    """Return the folder of the real AWS plugin of the person who runs this.

    Raises:
        DriverError: it isn't installed in exactly this version.
    """
    folder = Path.home() / ".pulumi" / "plugins" / f"resource-aws-v{version}"
    if not (folder / "pulumi-resource-aws").exists():
        raise DriverError(
            f"PROVIDER=real needs the real AWS plugin in {folder}, and it isn't there. Install it "
            f"with `pulumi plugin install resource aws v{version}` (it comes from GitHub), or "
            "leave PROVIDER away to use the rehearsal's own provider."
        )
    return folder.resolve()
