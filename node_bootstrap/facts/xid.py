"""Xid events: what the NVIDIA driver wrote into the kernel's log when a GPU failed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("dmesg", "--kernel", "--time-format=raw")
OFF_THE_BUS = 79
_XID = re.compile(r"NVRM: Xid.*?\(PCI:(?P<pci>[0-9a-fA-F:.]+)\): (?P<code>\d+)(?:, (?P<text>.*))?")
_STAMP = re.compile(r"\[\s*(\d+\.\d+)\]")
_SXID = re.compile(r"nvidia-nvswitch\d+: SXid \(PCI:(?P<pci>[0-9a-fA-F:.]+)\): (?P<code>\d+)")
_FALLEN = re.compile(r"NVRM: GPU (?P<pci>[0-9a-fA-F:.]+): GPU has fallen off the bus")
_REFUSED = re.compile(r"(?i)operation not permitted|read kernel buffer failed|not found")


@dataclass(frozen=True)
class Xid:
    """One event. code: NVIDIA's number; switch: of an NVSwitch (an SXid), not of a GPU.

    at_seconds: since boot; None where the log does not count so.
    """

    pci: str
    code: int
    text: str
    switch: bool = False
    at_seconds: float | None = None


@dataclass(frozen=True)
class Xids:
    """All events of this boot, oldest first."""

    events: tuple[Xid, ...]


def parse(output: str) -> Xids | Unknown:
    """Of `dmesg` or `journalctl -k`. A log without the kernel's own lines is unknown."""
    if not output.strip():
        return Unknown("the kernel log is empty: it can't be read, or was cleared")
    if _REFUSED.search(first_line(output)):
        return Unknown(f"the kernel log can't be read: {first_line(output)}")
    events: list[Xid] = []
    for line in output.splitlines():
        event = _event(line)
        # A GPU that falls off the bus is told twice: as an Xid and in a line of its own.
        if event and not (event.code == OFF_THE_BUS and any(_same(event, e) for e in events)):
            events.append(event)
    return Xids(tuple(events))


def _event(line: str) -> Xid | None:
    stamp = _STAMP.match(line)
    at = float(stamp[1]) if stamp else None
    if match := _XID.search(line):
        text = (match["text"] or "").strip()[:160]
        return Xid(_address(match["pci"]), int(match["code"]), text, at_seconds=at)
    if match := _SXID.search(line):
        text = line[match.end() :].lstrip(", ")[:160]
        return Xid(_address(match["pci"]), int(match["code"]), text, switch=True, at_seconds=at)
    if match := _FALLEN.search(line):
        return Xid(
            _address(match["pci"]), OFF_THE_BUS, "GPU has fallen off the bus.", at_seconds=at
        )
    return None


def _address(pci: str) -> str:
    """Xids leave the function out, which is 0 for every GPU."""
    return pci.lower() if "." in pci else f"{pci.lower()}.0"


def _same(one: Xid, other: Xid) -> bool:
    return (one.pci, one.code) == (other.pci, other.code)
