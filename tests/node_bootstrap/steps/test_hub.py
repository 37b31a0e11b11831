"""Hugging Face as a node reads it, against a small one that answers as the real one does."""

from __future__ import annotations

import hashlib
import time

import pytest

from node_bootstrap.steps.base import StepError
from node_bootstrap.steps.hub import Hub, HubFile, wanted
from rehearsal.hub import HubFault

LARGE = "model.safetensors"


def client(hub, token="", revision=None):
    return Hub("org/tiny", revision or hub.commit, token, hub.url, wait_seconds=0.01)


def soon():
    return time.monotonic() + 20


def file(hub, path):
    return next(f for f in client(hub).files(soon()) if f.path == path)


def read(hub, path=LARGE):
    return b"".join(client(hub).read(file(hub, path), soon()))


def test_a_commit_lists_its_files_with_sizes_and_digests(hub):
    content = (hub.folder / LARGE).read_bytes()
    found = {f.path: f for f in client(hub).files(soon())}
    assert set(found) == {"config.json", LARGE, "pytorch_model.bin", "sub/notes.txt"}
    assert found[LARGE].size_bytes == len(content)
    assert found[LARGE].sha256 == hashlib.sha256(content).hexdigest()
    assert found["config.json"].sha256 is None


def test_large_and_small_files_come_over_their_redirects(hub):
    assert read(hub) == (hub.folder / LARGE).read_bytes()
    assert read(hub, "config.json") == (hub.folder / "config.json").read_bytes()


def test_a_download_that_is_cut_goes_on_where_it_was_cut(hub):
    hub.serve(HubFault(LARGE, cut_after=3000), HubFault(LARGE, cut_after=2000))
    assert read(hub) == (hub.folder / LARGE).read_bytes()
    assert hub.asked("/cdn/") == [("", 200), ("bytes=3000-", 206), ("bytes=5000-", 206)]


def test_a_busy_hub_is_asked_again(hub):
    hub.serve(HubFault(LARGE, calls=2, status=503), HubFault(LARGE, status=429))
    assert read(hub) == (hub.folder / LARGE).read_bytes()
    assert [status for _, status in hub.asked("/resolve/")] == [503, 503, 429, 302]


def test_a_hub_that_stays_busy_is_given_up_with_how_far_it_came(hub):
    hub.serve(HubFault(LARGE, cut_after=3000), HubFault(LARGE, calls=99, status=503))
    with pytest.raises(StepError, match=r"after 0 of 10240 bytes: HTTP 503 \(6 tries\)"):
        read(hub)


def test_the_token_opens_what_is_gated_and_is_not_shown_to_another_host(hub):
    hub.serve(token="hf_x")
    entry = HubFile(LARGE, 10240, None, "")
    assert b"".join(client(hub, "hf_x").read(entry, soon())) == (hub.folder / LARGE).read_bytes()
    assert hub.shown_to_cdn == [None]


@pytest.mark.parametrize(
    ("token", "said"), [("", "set moe-serving:huggingface_token"), ("hf_y", "accept the model's")]
)
def test_what_is_gated_says_what_to_do(hub, token, said):
    hub.serve(token="hf_x")
    with pytest.raises(StepError, match=said):
        client(hub, token).files(soon())


def test_a_commit_that_is_not_there_is_named(hub):
    with pytest.raises(StepError, match="at 0000"):
        client(hub, revision="0" * 40).files(soon())


def test_a_branch_is_refused_because_it_moves(hub):
    with pytest.raises(StepError, match="must be the commit itself"):
        client(hub, revision="main").files(soon())


def test_copies_in_other_forms_are_left_out_where_there_are_safetensors():
    def named(*paths):
        return tuple(HubFile(path, 1, None, "") for path in paths)

    both = named("a.safetensors", "a.bin", "original/c.0.pth", ".gitattributes", "config.json")
    assert [f.path for f in wanted(both)] == ["a.safetensors", "config.json"]
    old = named("a.bin", ".gitattributes")
    assert [f.path for f in wanted(old)] == ["a.bin"]
