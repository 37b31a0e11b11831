"""The Hub on the account's address: its paths there, and what tests tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehearsal.hub.server import PREFIX, Hub, HubFault, Served

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def below_hub(environ: WSGIEnvironment) -> WSGIEnvironment:
    """The request as the Hub sees it: its own address is no part of the path."""
    path = environ["PATH_INFO"].removeprefix(PREFIX)
    return {**environ, "PATH_INFO": path, "SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + PREFIX}


def told_to_hub(hub: Hub, given: Any) -> str:
    """Serve what a control path names; what is wrong with it, empty if nothing is.

    given: `{"repositories": [{repository, folder, token?}], "faults": [{path, calls?, …}]}`.
    """
    if not isinstance(given, dict) or not set(given) <= {"repositories", "faults"}:
        return "Expected repositories and faults."
    try:
        served = [Served(**one) for one in given.get("repositories", ())]
        faults = [HubFault(**one) for one in given.get("faults", ())]
        hub.serve(served, faults)
    except (TypeError, OSError) as error:
        return str(error)
    return ""
