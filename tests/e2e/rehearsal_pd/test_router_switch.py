"""A second router takes over from the first, under long streams: each ends whole."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator

import pytest
from prefill_decode import PREFILL, PrefillDecode
from under_load import Door, Load

from node_bootstrap.assignment import Assignment, assignment_key
from node_bootstrap.jsondata import from_json, to_json
from node_bootstrap.revision import with_revision
from node_bootstrap.status import Change

pytestmark = pytest.mark.drill

LONG, TOKENS = "A stream that outlives its router", 400


@contextlib.contextmanager
def told_of_another_router(pd: PrefillDecode) -> Iterator[None]:
    """The gateway's assignment with another command line for its router, as `up` would write it."""
    s3, where = pd.client("s3"), {"Bucket": pd.bucket, "Key": assignment_key("gateway")}
    before = s3.get_object(**where)["Body"].read()
    told = from_json(Assignment, before)
    assert told.gateway is not None
    argv = (*told.gateway.router_argv, "--log-level", "info")
    gateway = dataclasses.replace(told.gateway, router_argv=argv)
    (other,) = with_revision((dataclasses.replace(told, gateway=gateway),))
    s3.put_object(**where, Body=to_json(other, without_defaults=True).encode())
    try:
        yield
    finally:
        s3.put_object(**where, Body=before)


def take_over(pd: PrefillDecode, since: float) -> Change:
    """The first time after a moment that another router got the requests."""

    def found() -> list[Change]:
        changes = pd.gateway().changes
        return [c for c in changes if c.at > since and c.cause.endswith("took over")]

    pd.wait("another router took over", lambda: bool(found()), 60)
    return found()[0]


def running(pd: PrefillDecode) -> list[str]:
    units = pd.gateway().units
    return [name for name, state in units.items() if "router" in name and state != "inactive"]


def test_streams_that_a_router_has_begun_end_whole_when_another_takes_over(
    pd: PrefillDecode,
) -> None:
    pd.wait("everything is in", pd.in_full, 180)
    alone = pd.ask(PREFILL[0], {"prompt": LONG, "max_tokens": TOKENS})
    streams = Load(
        Door.of(pd.outputs()),
        {LONG: alone.text},
        max_tokens=TOKENS,
        per_second=1,
        streams_only=True,
    )
    with streams.running():
        time.sleep(2)
        began = time.time()
        with told_of_another_router(pd):
            there = take_over(pd, began)
        back = take_over(pd, there.at)
    for switch in (there, back):
        assert streams.across(switch.at), "none was under way: this proves nothing"
    print(len(streams.sent), [len(streams.across(s.at)) for s in (there, back)])
    assert not streams.failed(), streams.failed()
    assert not streams.wrong(), streams.wrong()
    pd.wait("the routers that were left have ended", lambda: len(running(pd)) == 1, 30)
    assert pd.in_full()
