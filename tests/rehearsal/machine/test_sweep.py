"""Which processes are taken for a rehearsal's own."""

from __future__ import annotations

from rehearsal.machine.sweep import _tags
from rehearsal.paths import Home


def test_supervisors_and_resolvers_are_known_by_their_folder(tmp_path):
    home = Home(tmp_path / "rehearsal")
    supervisor = ["python", "-m", "rehearsal.machine.supervisor", str(home.instances / "i-1")]
    resolver = ["dnsmasq", f"--conf-file={home.root}/networks/vpc-1/dnsmasq.conf"]
    assert set(_tags(supervisor)) == {home.tag}
    assert set(_tags(resolver)) == {home.tag}


def test_somebody_who_reads_a_console_log_is_left_alone(tmp_path):
    log = Home(tmp_path / "rehearsal").instances / "i-1" / "console.log"
    assert list(_tags(["tail", "-f", str(log)])) == []
