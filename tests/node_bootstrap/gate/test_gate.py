"""What is seen of a node, and the action that follows."""

from __future__ import annotations

import dataclasses

import pytest
from nodes import HEALTHY, P5EN, Node

from node_bootstrap import durable
from node_bootstrap.facts.base import Unknown
from node_bootstrap.gate.decide import ORDER, Attempts, GateRecord, after, escalate, worst
from node_bootstrap.gate.observe import Observation, observe
from node_bootstrap.gate.rules import RULES, judge
from node_bootstrap.gate.xids import XIDS
from node_bootstrap.status import HardwareFinding
from node_bootstrap.steps.base import Marks, StepError, run_step
from node_bootstrap.steps.hardware import HardwareStep

DIAGNOSED = dataclasses.replace(P5EN, dcgm_level=1)

# the fact taken from this file instead -> the action it asks for, the rules that say so
CASES = [
    ("", "OK", set()),
    ("gpus/p5en-seven-and-one-lost", "ISOLATE", {"gpu_count"}),
    ("gpus/driver-not-loaded", "ISOLATE", {"gpu_count"}),
    ("missing gpus", "ISOLATE", {"gpu_count"}),
    ("gpus/g6e-four-l40s", "ISOLATE", {"gpu_count", "gpu_type", "driver", "fabric_manager"}),
    ("gpu_report/uncorrectable-errors-since-boot", "RESET", {"ecc_uncorrected"}),
    ("gpu_report/row-remap-pending", "RESET", {"ecc_pending"}),
    ("gpu_report/a10g-old-driver-pages-pending", "RESET", {"ecc_pending"}),
    ("gpu_report/row-remap-failed", "ISOLATE", {"ecc_worn_out"}),
    ("gpu_report/board-beyond-repair", "ISOLATE", {"ecc_worn_out"}),
    ("gpu_report/ecc-switched-off", "MONITOR", {"ecc_off"}),
    ("gpu_report/hot-and-slowed", "MONITOR", {"clocks"}),
    ("gpu_report/power-brake", "MONITOR", {"clocks"}),
    ("gpu_report/fabric-in-progress", "RESET", {"fabric_state"}),
    ("gpu_report/fabric-not-registered", "RESET", {"fabric_state"}),
    ("gpu_report/cut-off", "MONITOR", {"report"}),
    ("unit/fabric-manager-failed", "RESET", {"fabric_manager"}),
    ("unit/not-installed", "ISOLATE", {"fabric_manager"}),
    ("fabric_manager/of-another-driver", "ISOLATE", {"fabric_manager"}),
    ("fabric_manager/missing-library", "MONITOR", {"fabric_manager"}),
    ("gpu_topology/one-gpu-without-nvlink", "REBOOT", {"nvlink"}),
    ("gpu_topology/a-word-of-a-later-tool", "MONITOR", {"nvlink"}),
    ("nvlink/two-links-inactive", "REBOOT", {"nvlink"}),
    ("nvlink/failed", "MONITOR", {"nvlink"}),
    ("xid/fallen-off-the-bus", "REBOOT", {"xid"}),
    ("xid/double-bit-error-and-row-remap", "RESET", {"xid"}),
    ("xid/application-fault", "MONITOR", {"xid"}),
    ("xid/nvlink-error-and-switch", "REBOOT", {"xid"}),
    ("xid/gsp-timeout", "REBOOT", {"xid"}),
    ("xid/not-allowed", "MONITOR", {"xid"}),
    ("pci/no-efa-no-gpu", "ISOLATE", {"efa"}),
    ("pci/failed", "MONITOR", {"efa"}),
    ("dcgm/row-remap-failure-on-gpu-3", "ISOLATE", {"dcgm"}),
    ("dcgm/no-engine", "MONITOR", {"dcgm"}),
]


def findings(case: str) -> tuple[HardwareFinding, ...]:
    lost = case.removeprefix("missing ") if case.startswith("missing ") else ""
    node = Node(missing=(lost,)) if lost else Node(case)
    return judge(DIAGNOSED, observe(DIAGNOSED, node))


@pytest.mark.parametrize(
    ("case", "action", "rules"), CASES, ids=[case or "healthy" for case, _, _ in CASES]
)
def test_a_fact_leads_to_an_action(case, action, rules):
    found = findings(case)
    assert worst(found) == action, found
    assert {f.rule for f in found} == rules


def test_every_action_is_reached():
    assert {action for _, action, _ in CASES} == set(ORDER)


def test_every_fact_of_the_gate_is_broken_once():
    broken = {case.partition("/")[0] for case, _, _ in CASES}
    assert broken >= {file.partition("/")[0] for file in HEALTHY.values()}


def test_a_gpu_that_is_on_the_bus_but_silent_gets_a_reboot():
    one = dataclasses.replace(P5EN, gpu_count=2)
    found = judge(one, observe(one, Node("gpus/driver-not-loaded")))
    assert [(f.rule, f.action) for f in found] == [("gpu_count", "REBOOT")]


def test_a_gpu_without_a_near_network_card_is_watched():
    wanted = dataclasses.replace(P5EN, efa_devices=8)
    node = Node()
    topology = observe(P5EN, node).topology
    moved = dataclasses.replace(
        topology, near=tuple(dataclasses.replace(n, distance="NODE") for n in topology.near)
    )
    seen = dataclasses.replace(observe(P5EN, node), topology=moved)
    found = [f for f in judge(wanted, seen) if f.rule == "nic_distance"]
    assert len(found) == 8
    assert {f.action for f in found} == {"MONITOR"}


FACTS = [field.name for field in dataclasses.fields(Observation) if field.name != "reset_at"]


@pytest.mark.parametrize("fact", FACTS)
def test_a_fact_that_is_unknown_is_told(fact):
    seen = dataclasses.replace(observe(DIAGNOSED, Node()), **{fact: Unknown("nobody knows")})
    assert [f for f in judge(DIAGNOSED, seen) if "nobody knows" in f.what]


@pytest.mark.parametrize("topology", ["g6e-no-nvlink", "failed"])
def test_a_distance_to_the_network_cards_that_is_unknown_is_told_without_nvlink_too(topology):
    wanted = dataclasses.replace(P5EN, nvlink=False, efa_devices=8)
    found = judge(wanted, observe(wanted, Node(f"gpu_topology/{topology}")))
    assert [f.action for f in found if f.rule == "nic_distance"] == ["MONITOR"]


def test_a_type_without_nvlink_is_not_asked_for_it():
    wanted = dataclasses.replace(P5EN, nvlink=False)
    seen = observe(wanted, Node("gpu_topology/g6e-no-nvlink", "unit/not-installed"))
    assert judge(wanted, seen) == ()


def test_what_the_log_says_of_before_the_reset_is_dealt_with():
    file = "xid/double-bit-error-and-row-remap"  # at 812.55 s
    assert worst(judge(P5EN, observe(P5EN, Node(file), reset_at=900.0))) == "OK"
    assert worst(judge(P5EN, observe(P5EN, Node(file), reset_at=800.0))) == "RESET"


def test_all_rules_are_known_by_their_docstring():
    assert all(rule.__doc__ for rule in RULES)
    assert {action for action, _ in XIDS.values()} <= set(ORDER)


def test_a_reset_that_did_not_help_becomes_a_reboot_and_that_another_node():
    attempts = Attempts()
    taken = []
    for boot in ("one", "one", "one", "two"):
        action = escalate("RESET", attempts, boot)
        taken.append(action)
        attempts = after(action, attempts, boot, 5.0)
    assert taken == ["RESET", "REBOOT", "REBOOT", "RESET"]
    assert escalate("RESET", attempts, "two") == "ISOLATE"
    assert escalate("REBOOT", attempts, "two") == "ISOLATE"


def test_a_healthy_node_starts_with_a_clean_slate():
    assert after("OK", Attempts("one", "zero", 5.0), "two", 9.0) == Attempts()


def step(node, tmp_path, boot="one", told=None) -> HardwareStep:
    return HardwareStep(
        P5EN,
        "serve-0-1 (i-1)",
        boot,
        tmp_path / "gate.json",
        node,
        (told if told is not None else []).append,
    )


def run(made: HardwareStep):
    return run_step(made, Marks(lambda _: "", lambda _n, _m: None, "one"))


def test_a_healthy_node_passes(tmp_path):
    told = []
    report = run(step(Node(), tmp_path, told=told))
    assert report.outcome == "NOCHANGE"
    assert "8 x H200, 2 EFA, OK" in report.detail
    assert told[-1].action == "OK"


def test_what_only_wants_watching_lets_the_node_pass_and_is_told(tmp_path):
    told = []
    report = run(step(Node("gpu_report/hot-and-slowed"), tmp_path, told=told))
    assert report.outcome == "NOCHANGE"
    assert "MONITOR: 0000:00:06.0 slowed (hw_slowdown, hw_thermal_slowdown)" in report.detail
    assert told[-1].findings[0].rule == "clocks"


def test_a_gpu_is_reset_with_the_fabric_manager_then_the_node_rebooted_then_isolated(tmp_path):
    node = Node("gpu_report/row-remap-pending")
    report = run(step(node, tmp_path))
    assert report.outcome == "FAILED"
    assert "applied, but still: REBOOT" in report.detail
    assert node.done == [
        "nvidia-smi --gpu-reset -i 0000:00:06.0",
        "systemctl restart nvidia-fabricmanager.service",
    ]
    node.done.clear()
    report = run(step(node, tmp_path))
    assert node.done == ["systemctl reboot"]
    assert report.detail.startswith("REBOOT: 0000:00:06.0 bad memory")
    node.done.clear()
    report = run(step(node, tmp_path))
    assert report.detail.startswith("REBOOT: "), "the agent tries again while the node goes down"
    node.done.clear()
    run(step(node, tmp_path, boot="two"))  # a reset is tried once more in the new boot
    report = run(step(node, tmp_path, boot="two"))
    assert report.detail.startswith("ISOLATE: ")
    assert "replace serve-0-1 (i-1)" in report.detail
    assert "systemctl reboot" not in node.done


def test_a_reset_that_helps_lets_the_node_serve(tmp_path):
    class Mended(Node):
        def __call__(self, command):
            answer = super().__call__(command)
            if self.done:
                self.files["nvidia-smi -q -x"] = "gpu_report/h100-healthy"
            return answer

    report = run(step(Mended("gpu_report/row-remap-pending"), tmp_path))
    assert report.outcome == "CHANGED"


def test_a_node_that_can_not_serve_is_isolated_without_touching_it(tmp_path):
    told = []
    node = Node("gpu_report/row-remap-failed")
    with pytest.raises(StepError, match=r"vLLM is not started; replace serve-0-1 \(i-1\)"):
        step(node, tmp_path, told=told).apply(0)
    assert node.done == []
    assert told[-1].action == "ISOLATE"
    assert durable.load(tmp_path / "gate.json", GateRecord).report.action == "ISOLATE"
