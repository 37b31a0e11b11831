"""What a machine lacks is said all at once, with what to do."""

from __future__ import annotations

import pytest

from rehearsal.machine import host
from rehearsal.machine.interface import MachineError


def test_a_process_without_privileges_is_told_which_and_how(tmp_path, monkeypatch):
    faults = host._privilege_faults("Name:\tpython\nCapEff:\t0000000000000000\n")
    assert len(faults) == 1
    assert "CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_MKNOD" in faults[0]
    assert "run as root" in faults[0]


def test_root_has_all_it_needs():
    assert host._privilege_faults("CapEff:\t000001fffeffffff\n") == []


def test_missing_programs_come_with_the_packages_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"apt-get install .* dnsmasq-base iproute2 nftables"):
        host.check()


def test_a_failing_program_is_quoted_with_its_input():
    with pytest.raises(MachineError, match=r"`sh` failed: no such thing\nIts input was:\necho no"):
        host.run(["sh"], stdin="echo no such thing >&2; exit 3")
