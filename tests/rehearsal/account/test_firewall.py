"""Security groups as rules on addresses."""

from __future__ import annotations

from rehearsal.account.firewall import GroupRule, Member, resolve
from rehearsal.machine.interface import Rule

A, B, C = "10.0.0.4", "10.0.0.5", "10.0.0.6"


def test_a_group_that_names_itself_stands_for_the_addresses_of_all_its_members():
    members = [Member(A, ("sg",)), Member(B, ("sg",))]
    rules = resolve(members, {"sg": [GroupRule("ingress", "-1", None, None, None, "sg")]})
    peers = (f"{A}/32", f"{B}/32")
    assert rules == (
        Rule(A, "ingress", "-1", 0, 65535, peers),
        Rule(B, "ingress", "-1", 0, 65535, peers),
    )


def test_a_rule_may_name_another_group():
    members = [Member(A, ("front",)), Member(B, ("back",)), Member(C, ("back",))]
    groups = {"back": [GroupRule("ingress", "tcp", 8000, 8001, None, "front")], "front": []}
    assert resolve(members, groups) == (
        Rule(B, "ingress", "tcp", 8000, 8001, (f"{A}/32",)),
        Rule(C, "ingress", "tcp", 8000, 8001, (f"{A}/32",)),
    )


def test_a_group_without_members_lets_nobody_in():
    rule = GroupRule("ingress", "-1", None, None, None, "empty")
    assert resolve([Member(A, ("sg",))], {"sg": [rule]}) == ()


def test_a_cidr_rule_is_taken_as_it_is_and_icmp_has_no_ports():
    rule = GroupRule("egress", "icmp", -1, -1, "0.0.0.0/0", None)
    assert resolve([Member(A, ("sg",))], {"sg": [rule]}) == (
        Rule(A, "egress", "icmp", 0, 65535, ("0.0.0.0/0",)),
    )


def test_a_rule_that_two_groups_share_is_there_once():
    rule = GroupRule("egress", "-1", None, None, "0.0.0.0/0", None)
    assert len(resolve([Member(A, ("x", "y"))], {"x": [rule], "y": [rule]})) == 1


def test_rules_for_ipv6_alone_are_left_out():
    rule = GroupRule("egress", "-1", None, None, None, None)
    assert resolve([Member(A, ("sg",))], {"sg": [rule]}) == ()
