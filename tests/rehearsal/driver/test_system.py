from __future__ import annotations

import os

import pytest

from rehearsal.driver import system
from rehearsal.driver.errors import DriverError


def test_nothing_is_missing_where_all_programs_are():
    assert system.missing_packages(lambda name: f"/usr/bin/{name}") == []


def test_each_missing_program_asks_for_its_debian_package_once():
    assert system.missing_packages(lambda _: None) == sorted(set(system.PACKAGES.values()))
    lacking = system.missing_packages(lambda name: None if name == "dnsmasq" else name)
    assert lacking == ["dnsmasq-base"]


@pytest.mark.parametrize(
    ("os_release", "debian_like"),
    [
        ('ID=debian\nVERSION_ID="12"\n', True),
        ("ID=ubuntu\nID_LIKE=debian\n", True),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', True),
        ('ID="fedora"\n', False),
        ("", False),
    ],
)
def test_debian_and_its_children_are_told_from_others(os_release, debian_like):
    assert system.is_debian_like(os_release) is debian_like


def test_booting_without_root_is_refused_with_two_ways_out(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(DriverError, match=r"needs root.*Nothing was made.*BOOT=no"):
        system.require_bootable()


def test_elsewhere_than_on_debian_the_missing_packages_are_listed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DriverError, match=r"lacks .*dnsmasq.*dnsmasq-base") as problem:
        system.require_bootable()
    assert "Nothing was made" in str(problem.value)
