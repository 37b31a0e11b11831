"""A small Hugging Face of this machine's folders, for nodes that fetch weights from there."""

from rehearsal.hub.control import below_hub, told_to_hub
from rehearsal.hub.repository import Repository, repository
from rehearsal.hub.server import PREFIX, Hub, HubFault, Served

__all__ = [
    "PREFIX",
    "Hub",
    "HubFault",
    "Repository",
    "Served",
    "below_hub",
    "repository",
    "told_to_hub",
]
