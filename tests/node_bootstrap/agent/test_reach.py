from __future__ import annotations

import socket

from node_bootstrap.agent.reach import ReachOrder, reach, side_channels


def test_what_answers_is_reached_and_what_does_not_comes_with_why():
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        good, closed = (f"127.0.0.1:{s.getsockname()[1]}" for s in (listening, bound))
        report = reach(ReachOrder((good, closed, "nonsense")))
    assert set(report.unreached) == {closed, "nonsense"}
    assert "refused" in report.unreached[closed]


def test_nothing_to_try_is_nothing_unreached():
    assert reach(ReachOrder(())).unreached == {}


def test_each_rank_answers_handshakes_on_its_own_node_at_its_own_port():
    members = [("10.0.0.5", 0, 2), ("10.0.0.6", 2, 2)]
    assert side_channels(members, 5600) == (
        "10.0.0.5:5600",
        "10.0.0.5:5601",
        "10.0.0.6:5602",
        "10.0.0.6:5603",
    )
