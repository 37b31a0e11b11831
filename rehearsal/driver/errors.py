"""The one exception of the driver."""

from __future__ import annotations


class DriverError(Exception):
    """The command can't go on; the message is for the person who gave it."""
