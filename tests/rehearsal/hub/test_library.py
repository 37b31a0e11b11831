"""The rehearsal's Hub, read with the Hub's own library: what it takes for the real one."""

from __future__ import annotations

import os
import subprocess
import threading
from wsgiref.simple_server import make_server

import pytest

from rehearsal.hub import Hub, Served, repository
from rehearsal.image import vllm

pytestmark = pytest.mark.e2e  # needs the nodes' Python runtime, which takes a while to build

PROGRAM = """
import os, sys
from huggingface_hub import snapshot_download
folder = snapshot_download("org/tiny", revision=sys.argv[1], token="hf_t", cache_dir=sys.argv[2])
for name in sorted(os.listdir(folder)):
    print(name, os.path.getsize(os.path.join(folder, name)))
"""


def test_the_hubs_own_library_downloads_a_gated_snapshot(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(200_000))
    server = make_server("127.0.0.1", 0, Hub([Served("org/tiny", str(folder), "hf_t")]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "no_proxy": "*"}
        python = str(vllm.ensure() / "bin/python")
        commit = repository(folder).commit
        printed = subprocess.check_output(
            [python, "-c", PROGRAM, commit, str(tmp_path / "cache")],
            env={**os.environ, **address},
            text=True,
        )
    finally:
        server.shutdown()
        server.server_close()
    assert printed.splitlines() == ["config.json 2", "model.safetensors 200000"]
