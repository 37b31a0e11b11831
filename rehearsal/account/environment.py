"""What must be set before moto is imported: it reads its settings at import. Imports no moto."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

MOTO = "5.2.5"
"""Our EC2 sits on moto's inside, which moves within 5.x: exactly this version, or nothing."""
ACCOUNT_ID = "123456789012"
NO_IMAGES = Path(__file__).with_name("no_images.json")
"""moto reads its own images from the file in MOTO_AMIS_PATH: an empty list, since making them
takes a second and none of them could boot."""


def prepare() -> None:
    """Set moto's settings and check its version; a wrong one ends the process with a message."""
    found = version("moto")
    if found != MOTO:
        raise SystemExit(
            f"The account needs moto {MOTO}, this environment has {found}: its EC2 is built on "
            "moto's inside. Run `make venv`."
        )
    os.environ["MOTO_AMIS_PATH"] = str(NO_IMAGES)
    os.environ["MOTO_ACCOUNT_ID"] = ACCOUNT_ID
    # A user's own AWS settings are none of the account's business.
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_CONFIG_FILE"):
        os.environ.pop(name, None)
