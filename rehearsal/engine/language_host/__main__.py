"""Start the language host: `python -m rehearsal.engine.language_host --executor FILE ENGINE`."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from concurrent import futures
from pathlib import Path

import grpc
from pulumi.runtime.proto import language_pb2_grpc

from rehearsal.engine.language_host.children import Children
from rehearsal.engine.language_host.host import PythonHost

VERSION = "3.274.1"
"""The CLI's version (go.mod), as the original host carries it."""
LARGEST_MESSAGE_BYTES = 400 << 20
"""The engine's own limit: a stack's configuration and outputs travel in one message."""
WATCH_SECONDS = 1.0


def main() -> None:
    """Serve on a free port of loopback, say which on stdout, and stay until the engine is gone."""
    parser = argparse.ArgumentParser(prog="pulumi-language-python")
    parser.add_argument("--executor", type=Path, required=True)
    parser.add_argument("--engine-process", type=int, required=True, help="pid of the engine")
    parser.add_argument("engine", nargs="?", default="", help="host:port of the engine")
    # the engine passes runtime options as flags to some hosts; Run brings them again
    arguments, _ = parser.parse_known_args()

    ending = threading.Event()
    # SIGINT is how the engine ends its plugins; it waits five seconds for those that ignore it
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ending.set())

    children = Children()
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=16),
        options=[("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES)],
    )
    host = PythonHost(arguments.executor, VERSION, arguments.engine, children)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)

    # An engine that was killed can't send a signal: its end shows as another parent. Its pid is
    # given, because by now it may be gone already: asking for the parent here would find init.
    while os.getppid() == arguments.engine_process and not ending.wait(WATCH_SECONDS):
        pass
    children.stop()
    server.stop(grace=0.3).wait()
    os._exit(0)  # threads of calls that are being cut off must not hold the process


if __name__ == "__main__":
    main()
