from __future__ import annotations

import pytest

from infra.checks import judge_launch, launch_facts


@pytest.fixture
def members_rules(two_nodes):
    """Rules of the nodes' security group."""
    account, _ = two_nodes
    kinds = {"in": "SecurityGroupIngressRule", "out": "SecurityGroupEgressRule"}
    found = [
        {**made.inputs, "direction": direction}
        for direction, kind in kinds.items()
        for made in account.of(kind)
    ]
    return [rule for rule in found if rule["securityGroupId"] == "members-id"]


def test_every_launch_of_the_program_passes_the_rules_of_launches(two_nodes, members_rules):
    account, _ = two_nodes
    templates = account.of("launchTemplate:LaunchTemplate")
    assert templates
    for template in templates:
        facts = launch_facts(template.inputs, members_rules, runtime="venv")
        assert facts.requested
        assert judge_launch(facts) == ()


def test_a_template_changed_for_the_worse_is_found(two_nodes, members_rules):
    account, _ = two_nodes
    template = dict(account.of("launchTemplate:LaunchTemplate")[0].inputs)
    template["metadataOptions"] = {"httpTokens": "optional", "httpPutResponseHopLimit": 2}
    template["networkInterfaces"] = [
        {"networkCardIndex": 0, "deviceIndex": 0, "associatePublicIpAddress": "true"},
        {"networkCardIndex": 1, "interfaceType": "efa-only", "associatePublicIpAddress": "false"},
    ]
    found = judge_launch(launch_facts(template, members_rules[:1], runtime="venv"))
    assert [finding.code for finding in found] == [
        "EFA_ONLY_WITH_ADDRESS",
        "IMDS_HOP_LIMIT",
        "IMDS_WITHOUT_TOKENS",
        "MEMBERS_CLOSED_TO_THEMSELVES",
        "PUBLIC_ADDRESS_WITH_SEVERAL_INTERFACES",
    ]
