"""Addresses of a subnet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rehearsal.account.ec2.addresses import AddressPool


def test_a_28_has_eleven_addresses_from_the_fifth_on():
    pool = AddressPool("10.0.0.0/28")
    given_out = [pool.take_next() for _ in range(12)]
    assert given_out == [f"10.0.0.{n}" for n in range(4, 15)] + [None]


def test_a_released_address_is_not_reused_at_once():
    pool = AddressPool("10.0.0.0/28")
    first = pool.take_next()
    pool.release(first)
    assert pool.take_next() != first


@given(st.lists(st.one_of(st.none(), st.integers(4, 14)), max_size=60))
def test_nobody_has_an_address_twice(steps):
    pool, held = AddressPool("10.0.0.0/28"), set()
    for step in steps:
        address = f"10.0.0.{step}"
        if step is not None and address in held:
            pool.release(address)
            held.discard(address)
        elif (new := pool.take_next()) is not None:
            assert new not in held
            held.add(new)
        assert pool.free == 11 - len(held)
