"""A Hub with one model, on two addresses as the real one: its own, and that of large files.

The made-up wheels beside this file are importable by name.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from rehearsal.hub import Hub, Served

sys.path.insert(0, str(Path(__file__).parent))
REPOSITORY = "org/tiny"


class Quiet(WSGIRequestHandler):
    def log_message(self, format, *args):  # noqa: A002 - the name of the base class
        pass


@dataclass
class OnePlace:
    """The Hub and what was asked of the two addresses. url: its own."""

    folder: Path
    hub: Hub
    url: str
    shown_to_cdn: list[str | None] = field(default_factory=list)

    @property
    def commit(self) -> str:
        return self.hub.told()["repositories"][0]["commit"]

    def serve(self, *faults, token: str = "") -> None:
        self.hub.serve([Served(REPOSITORY, str(self.folder), token)], faults)

    def asked(self, path: str) -> list[tuple[str, int]]:
        return [(a["range"], a["status"]) for a in self.hub.told()["asked"] if path in a["path"]]


@pytest.fixture
def hub(tmp_path):
    folder = tmp_path / "on-the-hub"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_bytes(b'{"model_type": "tiny"}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "pytorch_model.bin").write_bytes(b"the same in another form")
    (folder / "sub/notes.txt").write_bytes(b"")
    place = OnePlace(folder, Hub(), "")

    def cdn(environ, start_response):
        place.shown_to_cdn.append(environ.get("HTTP_AUTHORIZATION"))
        return place.hub(environ, start_response)

    servers = [make_server("127.0.0.1", 0, app, handler_class=Quiet) for app in (place.hub, cdn)]
    own, large = servers
    # Two names of this machine: what a client may show to one of them is not for the other.
    place.url = f"http://127.0.0.1:{own.server_port}"
    place.hub = Hub(cdn=f"http://localhost:{large.server_port}")
    own.set_app(place.hub)
    place.serve()
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield place
    for server in servers:
        server.shutdown()
        server.server_close()
