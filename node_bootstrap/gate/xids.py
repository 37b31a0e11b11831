"""What to do after an Xid, by its number.

From NVIDIA's Xid catalog and the actions of AWS's GPU cluster health check. What an application
can cause by itself asks for nothing: vLLM is started anew after it anyway.
"""

from __future__ import annotations

from node_bootstrap.status import HardwareAction

XIDS: dict[int, tuple[HardwareAction, str]] = {
    13: ("MONITOR", "graphics engine exception, by an application or a fault of memory"),
    31: ("MONITOR", "page fault, nearly always of an application"),
    32: ("MONITOR", "corrupted push buffer"),
    38: ("RESET", "driver firmware error"),
    43: ("MONITOR", "an application stopped processing"),
    45: ("MONITOR", "an application was ended from outside"),
    48: ("RESET", "double-bit error of memory"),
    61: ("RESET", "internal micro-controller breakpoint"),
    62: ("RESET", "internal micro-controller halt"),
    63: ("RESET", "a row of memory is to be remapped, which a reset does"),
    64: ("ISOLATE", "a row of memory could not be remapped"),
    69: ("MONITOR", "graphics engine class error"),
    74: ("REBOOT", "NVLink error"),
    79: ("REBOOT", "the GPU has fallen off the bus"),
    92: ("MONITOR", "many single-bit errors of memory"),
    94: ("RESET", "contained error of memory"),
    95: ("REBOOT", "uncontained error of memory"),
    109: ("RESET", "context switch timeout"),
    119: ("REBOOT", "GPU system processor does not answer"),
    120: ("REBOOT", "GPU system processor error"),
    121: ("MONITOR", "error of the chip-to-chip link, corrected"),
    140: ("RESET", "unrecovered error of memory"),
    143: ("REBOOT", "the GPU could not be initialized"),
    145: ("REBOOT", "NVLink RLW error"),
    149: ("REBOOT", "NVLink NETIR error"),
    154: ("MONITOR", "the driver changed its recommended recovery action"),
}
OTHER: tuple[HardwareAction, str] = ("MONITOR", "not in the table of this release")
SWITCH: tuple[HardwareAction, str] = ("REBOOT", "error of an NVSwitch")
