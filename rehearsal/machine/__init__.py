"""Instances as system containers: real systemd, real cloud-init, metadata service, firewall."""

from __future__ import annotations

from rehearsal.machine.containers import Containers
from rehearsal.machine.host import check
from rehearsal.machine.inside import enter
from rehearsal.machine.sweep import leftovers, sweep

__all__ = ["Containers", "check", "enter", "leftovers", "sweep"]
