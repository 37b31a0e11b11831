"""What KV moves over, by the words that NIXL 1.5.0 and UCX 1.23.0 log."""

from __future__ import annotations

import pytest

from node_bootstrap.agent.transport import KvWords, fault, manager_fault, words
from node_bootstrap.assignment import KvTransfer

BACKEND = "2026-11-25 08:09:08 NIXL INFO    _api.py:405 Backend UCX was instantiated\n"
ENDPOINT = (
    "[1795594169.461590] [ip-10-54-0-5:370  :1]      ucp_worker.c:1997 UCX  INFO    "
    "249b17e1-0130-496b-ba04-a74ed51 {to} cfg#1 rma_am({lane})  amo_am({lane})  am({lane})  "
    "ka({lane})\n"
)
OWN = ENDPOINT.format(to="intra-node", lane="tcp/ens5")
PEER = ENDPOINT.format(to="inter-node", lane="tcp/ens5")
TCP = KvTransfer("NixlConnector", ("UCX",), "tcp", 5600, restart_with_peer=False)
EFA = KvTransfer("NixlConnector", ("LIBFABRIC",), "efa", 5600, restart_with_peer=True)


def test_at_its_start_ucx_names_the_transport_to_itself_and_later_that_to_peers():
    early, late = words(BACKEND + OWN), words(BACKEND + OWN + PEER)
    assert (early.own, early.peers, early.whole) == (("tcp/ens5",), (), False)
    assert (late.peers, late.whole) == (("tcp/ens5",), True)
    assert str(late) == "UCX tcp/ens5"


def test_the_transport_of_blocks_counts_and_not_that_of_keepalives():
    line = ENDPOINT.replace("rma_am({lane})", "rma(rc_mlx5/mlx5_0:1)")
    assert words(line.format(to="inter-node", lane="tcp/ens5")).peers == ("rc_mlx5/mlx5_0:1",)


def test_a_backend_other_than_ucx_has_no_more_to_say():
    said = words(BACKEND.replace("UCX", "LIBFABRIC"))
    assert (str(said), said.whole) == ("LIBFABRIC", True)


def test_what_scrolled_out_of_the_log_stays_said():
    assert words(BACKEND + OWN).join(words(PEER)) == words(BACKEND + OWN + PEER)


def test_kv_that_moves_as_planned_is_no_fault():
    assert fault(TCP, words(BACKEND + OWN + PEER)) == ""
    assert fault(EFA, words(BACKEND.replace("UCX", "LIBFABRIC"))) == ""
    assert fault(TCP, KvWords()) == ""


@pytest.mark.parametrize(
    ("planned", "log", "said"),
    [
        (EFA, BACKEND, "NIXL moves KV with UCX; the plan names efa with LIBFABRIC"),
        (TCP, BACKEND + ENDPOINT.format(to="inter-node", lane="sysv/memory"), "over sysv/memory"),
        (TCP, BACKEND + ENDPOINT.format(to="inter-node", lane="rc_mlx5/mlx5_0:1"), "rc_mlx5"),
    ],
)
def test_kv_that_moves_otherwise_is_a_fault_that_names_both(planned, log, said):
    assert said in fault(planned, words(log))


ARGV = ("vllm", "serve", "m", "--all2all-backend", "deepep_low_latency")


@pytest.mark.parametrize(
    ("argv", "env", "said", "wrong"),
    [
        (ARGV, {}, "deepep_low_latency", False),
        (ARGV, {}, None, False),
        (ARGV, {}, "SomeNewManager", False),
        (("vllm",), {}, "allgather_reducescatter", False),
        (ARGV, {}, "allgather_reducescatter", True),
        (("vllm",), {"VLLM_ALL2ALL_BACKEND": "pplx"}, "naive", True),
    ],
    ids=["as planned", "silent", "of no known name", "nothing planned", "other", "other, by env"],
)
def test_another_all2all_manager_than_the_planned_one_is_a_fault(argv, env, said, wrong):
    found = manager_fault(argv, env, said)
    assert bool(found) is wrong
    if wrong:
        assert found.startswith(f"vLLM exchanges tokens with {said}, it was started with ")
