"""uv itself: one pinned wheel by the index's own protocol, by the standard library alone."""

from __future__ import annotations

import base64
import subprocess
import threading

import pytest
from made_wheel import sha256, wheel
from werkzeug.serving import make_server

from node_bootstrap.steps import uv
from node_bootstrap.steps.base import StepError
from rehearsal.machine.index import JSON, Index

SCRIPT = b"#!/bin/sh\necho uv of this test\n"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index with a wheel of uv's name, pinned; `broken` breaks its next downloads."""
    folder, broken = tmp_path / "wheels", []
    folder.mkdir()
    inside = {f"uv-{uv.VERSION}.data/scripts/uv": SCRIPT, "filler": bytes(3_000_000)}
    made = wheel(folder, "uv", uv.VERSION, inside)
    pins = {machine: uv.Wheel(made.name, sha256(made)) for machine in uv.WHEELS}
    monkeypatch.setattr(uv, "WHEELS", pins)
    application = Index(folder, lambda _: broken.pop(0) if broken else None)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple/", broken
    server.shutdown()
    server.server_close()


def bring(index, folder):
    return uv.bring(folder, {"UV_DEFAULT_INDEX": index[0]})


def test_uv_is_fetched_checked_and_runs(index, tmp_path):
    program = bring(index, tmp_path / "work")
    assert subprocess.check_output([program], text=True) == "uv of this test\n"
    assert bring(("http://127.0.0.1:9",), tmp_path / "work") == program, "found, not fetched again"


def test_a_page_without_json_serves_as_well(index, tmp_path, monkeypatch):
    monkeypatch.setattr("rehearsal.machine.index.JSON", f"{JSON}; of another version")
    assert bring(index, tmp_path / "work").is_file()


def test_a_cut_download_goes_on_where_it_ended(index, tmp_path):
    index[1].extend([("cut-download", 1_000_000), ("cut-download", 500_000)])
    assert bring(index, tmp_path / "work").is_file()


def test_another_file_than_the_pinned_one_is_refused_and_not_kept(index, tmp_path):
    index[1].append(("wrong-file", 0))
    with pytest.raises(StepError, match=r"has SHA-256 \w{64}, pinned is \w{64}: it is not"):
        bring(index, tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []
    assert bring(index, tmp_path / "work").is_file()


def test_an_index_that_can_not_be_reached_is_named_without_its_password(tmp_path):
    with pytest.raises(StepError) as raised:
        uv.bring(tmp_path / "work", {"PIP_INDEX_URL": "http://name:secret@127.0.0.1:9/simple"})
    assert "from the package index http://127.0.0.1:9/simple: " in str(raised.value)
    assert "Connection refused" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_name_and_password_of_the_address_are_sent_to_the_index(index, tmp_path, monkeypatch):
    seen = []
    serve = Index.__call__

    def watched(self, environ, start_response):
        seen.append(environ.get("HTTP_AUTHORIZATION"))
        return serve(self, environ, start_response)

    monkeypatch.setattr(Index, "__call__", watched)
    address = index[0].replace("http://", "http://name:pass%40word@")
    assert bring((address,), tmp_path / "work").is_file()
    assert seen == [f"Basic {base64.b64encode(b'name:pass@word').decode()}"] * 2


def test_an_index_without_the_pinned_version_is_told(index, tmp_path, monkeypatch):
    pins = {machine: uv.Wheel("uv-9.9-x.whl", "0") for machine in uv.WHEELS}
    monkeypatch.setattr(uv, "WHEELS", pins)
    with pytest.raises(StepError, match=r"has no uv-9\.9-x\.whl"):
        bring(index, tmp_path / "work")


def test_without_a_setting_the_index_is_pypi():
    assert uv.index_of({}) == "https://pypi.org/simple"
