"""Which errors are for the person at the keyboard, and what to do about AWS's own."""

from __future__ import annotations

import sys


class UsageError(ValueError):
    """A command can't do what was asked; the message says why and what to do."""


def sentence_of(error: Exception) -> str | None:
    """The error as a sentence, or None for one that is a fault of the program."""
    from infra.faults import SettingsError  # noqa: PLC0415 - pydantic, needed on errors alone

    if isinstance(error, (SettingsError, UsageError)):
        return str(error)
    # If botocore was never imported, the error can't be one of its own.
    exceptions = sys.modules.get("botocore.exceptions")
    if exceptions and isinstance(error, exceptions.NoCredentialsError):
        return "No AWS credentials were found: set AWS_PROFILE, or log in as your account asks."
    if exceptions and isinstance(error, exceptions.NoRegionError):
        return "No AWS region is known: give --region or set AWS_REGION."
    if exceptions and isinstance(error, (exceptions.ClientError, exceptions.BotoCoreError)):
        return f"AWS: {error}"
    return None
