"""The plugin's process: serves the engine on a loopback port, and ends with it."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from concurrent import futures
from functools import cache
from pathlib import Path

from rehearsal.provider.install import wheel_version

_THREADS = 128
_MESSAGE_BYTES = 400 << 20
_PARENT_CHECK_SECONDS = 1.0
_GRACE_SECONDS = 0.5


def main() -> None:
    """Serve until the engine interrupts or disappears."""
    arguments = _arguments()
    if arguments.write_shapes:
        from rehearsal.provider import schema  # noqa: PLC0415 - not needed to serve
        from rehearsal.provider.registry import RESOURCES  # noqa: PLC0415

        schema.dump(list(RESOURCES), arguments.write_shapes)
        return
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    parent = os.getppid()
    server, port = serve(arguments.shapes, arguments.port)
    print(port, flush=True)
    # an engine that was killed leaves its plugins behind: they must notice by themselves
    while not ended.wait(_PARENT_CHECK_SECONDS):
        if os.getppid() != parent:
            break
    server.stop(_GRACE_SECONDS)
    os._exit(0)  # calls to AWS that still wait would hold a normal exit


def serve(shapes: Path | None, port: int = 0):  # noqa: ANN201 - grpc has no types
    """Start the server on a loopback port and return both.

    Args:
        shapes: the file of property shapes that `install` wrote; without it the wheel is read.
        port: 0 picks a free one.
    """
    import grpc  # noqa: PLC0415 - after the signal handlers are in place
    from pulumi.runtime.proto import provider_pb2_grpc  # noqa: PLC0415

    from rehearsal.provider import schema  # noqa: PLC0415
    from rehearsal.provider.servicer import Provider  # noqa: PLC0415

    look_up = schema.load(shapes).__getitem__ if shapes else cache(schema.of)
    server = grpc.server(
        futures.ThreadPoolExecutor(_THREADS),
        options=[
            ("grpc.max_receive_message_length", _MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MESSAGE_BYTES),
        ],
    )
    provider = Provider(wheel_version(), look_up)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, bound


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pulumi-resource-aws", description=__doc__)
    parser.add_argument("--shapes", type=Path, help="property shapes written by the installation")
    parser.add_argument("--write-shapes", type=Path, help="write them and end")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("engine", nargs="?", help="address of the engine that starts this")
    known, _ = parser.parse_known_args()  # the engine adds flags of its own (-tracing, …)
    return known


if __name__ == "__main__":
    main()
