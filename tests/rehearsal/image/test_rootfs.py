"""How the image is made: with the machine's own mirror, and quiet."""

from __future__ import annotations

from pathlib import Path

import pytest

from rehearsal.image import rootfs


def test_the_mirror_is_where_the_machine_takes_debian_from():
    targets = (
        "Packages|Docker|https://download.example.com/linux\n"
        "Packages|Debian|http://mirror.example.net/debian-security\n"
        "Packages|Debian|http://mirror.example.net/debian\n"
    )
    assert rootfs.mirror_of(targets) == "http://mirror.example.net/debian"


def test_a_machine_that_is_no_debian_leaves_the_mirror_to_mmdebstrap():
    assert rootfs.mirror_of("Packages|Ubuntu|http://archive.example.net/ubuntu\n") is None
    command = rootfs.mmdebstrap_command(Path("/x/root"), None, [])
    assert command[-2:] == [rootfs.SUITE, "/x/root"]


def test_proxy_and_trust_settings_of_apt_are_passed_on_and_nothing_else():
    dump = (
        'APT::Architecture "amd64";\n'
        'Acquire::http::Proxy "http://proxy.example.net:3128";\n'
        'Acquire::Check-Valid-Until "false";\n'
        'Acquire::Languages:: "none";\n'
    )
    assert rootfs.apt_options_of(dump) == [
        'Acquire::http::Proxy "http://proxy.example.net:3128";',
        'Acquire::Check-Valid-Until "false";',
    ]


def test_instances_look_for_ec2_only_and_know_the_account():
    config = rootfs.FILES["etc/cloud/cloud.cfg.d/90_ec2.cfg"]
    assert "datasource_list: [Ec2]" in config
    assert "AWS_ENDPOINT_URL=http://169.254.169.252:4566" in "".join(rootfs.FILES.values())


def test_without_root_the_image_is_not_begun(monkeypatch, tmp_path):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(rootfs.RootfsError, match="run this as root"):
        rootfs.build(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_mmdebstrap_is_named_with_its_package(monkeypatch, tmp_path):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(rootfs.RootfsError, match="apt-get install --no-install-recommends mmdeb"):
        rootfs.build(tmp_path)
