"""Terraform as a client that isn't ours; nothing but its environment leads it to an account."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

COMMAND_SECONDS = 900


def plugin_folder() -> Path:
    """The folder with the AWS provider; skips the test where it or Terraform is missing."""
    places = [
        os.environ.get("MOE_TERRAFORM_PLUGINS", ""),
        "/opt/tf-plugins",
        "~/.terraform.d/plugins",
        "/usr/local/share/terraform/plugins",
        "/usr/share/terraform/plugins",
    ]
    folders = [Path(p).expanduser() for p in places if p]
    found = next((f for f in folders if (f / "registry.terraform.io/hashicorp/aws").is_dir()), None)
    if shutil.which("terraform") is None or found is None:
        pytest.skip("terraform or a plugin folder with hashicorp/aws is not on this machine")
    return found


class Terraform:
    """Terraform in a folder of its own.

    endpoint: `url`, `access_key_id` and `secret_access_key` of the account.
    """

    def __init__(self, folder: Path, endpoint: Mapping[str, str], plugins: Path) -> None:
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "CHECKPOINT_DISABLE": "1",
            "AWS_ENDPOINT_URL": endpoint["url"],
            "TF_IN_AUTOMATION": "1",
            "AWS_ACCESS_KEY_ID": endpoint["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": endpoint["secret_access_key"],
        }
        self("init", f"-plugin-dir={plugins}")

    def __call__(self, *arguments: str) -> str:
        process = subprocess.Popen(
            ["terraform", arguments[0], "-no-color", *arguments[1:]],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=COMMAND_SECONDS)
        except BaseException:
            # The provider is a process of its own that would outlive a killed Terraform.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        assert process.returncode == 0, said
        return said

    def outputs(self) -> dict[str, Any]:
        return {name: o["value"] for name, o in json.loads(self("output", "-json")).items()}
