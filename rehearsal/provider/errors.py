"""AWS errors: which mean that something is gone, and how they are told."""

from __future__ import annotations

from typing import Any


def code(error: Exception) -> str:
    """AWS's error code, empty for errors that didn't come from AWS."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def text(error: Exception) -> str:
    """AWS's own words, or the error's."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Message", "") or error)


def gone(error: Exception) -> bool:
    """Whether the thing asked for does not exist."""
    name = code(error)
    return (
        name.endswith("NotFound")
        or name.startswith("NoSuch")
        or name
        in {
            "404",
            "InvalidPlacementGroup.Unknown",
            "ResourceNotFoundException",
        }
    )


def describe(doing: str, error: Exception) -> str:
    """One sentence: what was done, AWS's code and words, the API call."""
    operation = getattr(error, "operation_name", "")
    if code(error):
        return f"{doing}: {code(error)}: {text(error)} (API call {operation})"
    return f"{doing}: {error}" if str(error) else f"{doing}: {type(error).__name__}"
