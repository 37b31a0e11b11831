"""The Pulumi CLI of a rehearsal: the machine's own, or the real one built from its Go modules."""

from rehearsal.engine.build import Engine, EngineError, ensure, present
from rehearsal.engine.environment import (
    FOREIGN_VARIABLES,
    Endpoint,
    environment,
    for_child,
    foreign_variables,
    read_endpoint,
)

__all__ = [
    "FOREIGN_VARIABLES",
    "Endpoint",
    "Engine",
    "EngineError",
    "ensure",
    "environment",
    "for_child",
    "foreign_variables",
    "present",
    "read_endpoint",
]
