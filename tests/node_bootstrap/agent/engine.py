"""A small engine group with vLLM's manners (as measured): run as `engine.py primary|headless ...`.

The primary listens for its headless peer, then answers completions of both ranks. A peer that is
lost is not noticed: requests hang. A headless engine never ends when its primary is gone, and a
peer that comes late is not taken in.
"""

from __future__ import annotations

import http.server
import json
import os
import socket
import sys
import threading
import time


class Handler(http.server.BaseHTTPRequestHandler):
    peers = ()

    def do_POST(self):
        if self.headers.get("Authorization") != f"Bearer {os.environ['VLLM_API_KEY']}":
            self.send_error(401)
            return
        self.rfile.read(int(self.headers["Content-Length"]))
        for peer in self.peers:
            try:
                peer.settimeout(30)
                peer.sendall(b"?")
                alive = peer.recv(1)
            except OSError:
                alive = b""
            if not alive:
                time.sleep(30)  # a collective that waits for a dead peer
        body = json.dumps({"choices": [{"text": "A" * int(os.environ.get("LENGTH", "1"))}]})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args):
        pass


def primary(address, api_port, rpc_port, peers):
    found = []
    with socket.create_server((address, rpc_port)) as server:
        while len(found) < peers:
            found.append(server.accept()[0])
    Handler.peers = found
    print("[EP Rank 0/2] Expert parallelism is enabled. Expert placement strategy: linear. "
          "Local/global number of experts: 4/8. "
          "Experts local to global index map: 0->0, 1->1, 2->2, 3->3.", flush=True)  # fmt: skip
    http.server.ThreadingHTTPServer((address, api_port), Handler).serve_forever()


def headless(address, rpc_port):
    while True:
        try:
            link = socket.create_connection((address, rpc_port), timeout=1)
            break
        except OSError:
            time.sleep(0.1)
    link.settimeout(None)

    def answer():
        try:
            while link.recv(1):
                link.sendall(b"!")
        except OSError:
            pass

    threading.Thread(target=answer, daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    print(os.environ.get("SAYS", ""), flush=True)
    position, address, api_port, rpc_port, peers = sys.argv[1:6]
    if position == "primary":
        primary(address, int(api_port), int(rpc_port), int(peers))
    else:
        headless(address, int(rpc_port))
