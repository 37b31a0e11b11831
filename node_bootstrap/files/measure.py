"""A short measured transfer between all nodes of a group, before vLLM starts.

Or, with NIXL alone, between a prefill and a decode node, before KV crosses there.

Runs where vLLM will (its Python, its container, its environment): torch's collectives over NCCL on
GPUs and over Gloo on CPUs, then NIXL from node to node. Standard library beside torch and NIXL; the
agent puts this file on the node. One process a rank; the first one of a node starts the others.

    measure.py '{"node": 0, "nodes": 2, "address": "10.0.0.1", "port": 29511, "token": "a", ...}'

Rank 0 prints what came of it as one line that begins with `TRANSFER `; every node prints one that
begins with `NIXL `. What NCCL and NIXL log goes out around them.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

PILOT_BYTES = 1 << 20
DESCRIPTORS = 16
"""NIXL moves a buffer as so many parts, as it moves KV as blocks."""
LARGEST_READ_BYTES = 256 << 20
WARM_UPS = 3


@dataclass(frozen=True)
class Order:
    """What to measure, and with whom.

    node, nodes: place of this node, and how many there are. gpus: of each node; 0 on CPUs.
    address, port: of the first node, where all meet. token: of this measurement, so that a process
    left from an earlier one never takes part. largest_bytes: of one rank's buffer.
    seconds: that each measurement should take. limit_seconds: until all must have met.
    nixl: backends, none to leave NIXL out. collectives: measured too; NIXL alone takes no NCCL.
    """

    node: int
    nodes: int
    address: str
    port: int
    token: str
    gpus: int = 0
    largest_bytes: int = 16 << 20
    seconds: float = 1.0
    limit_seconds: float = 120.0
    nixl: tuple[str, ...] = ()
    collectives: bool = True

    @property
    def local(self) -> int:
        """Ranks of each node."""
        return max(1, self.gpus)

    @property
    def world(self) -> int:
        """Ranks of all nodes."""
        return self.nodes * self.local


@dataclass(frozen=True)
class Item:
    """One figure. gb_per_second: 10^9 bytes; what it counts stands at each measurement."""

    name: str
    gb_per_second: float
    payload_bytes: int
    times: int


def main(argv: list[str]) -> int:
    """Measure; the exit code."""
    given = json.loads(argv[1])
    order = Order(**{**given, "nixl": tuple(given.get("nixl", ()))})
    if len(argv) > 2:
        measure(order, int(argv[2]))
        return 0
    command = [sys.executable, argv[0], argv[1]]
    # NCCL and CUDA want a process of its own for each GPU.
    ranks = [subprocess.Popen([*command, str(local)]) for local in range(order.local)]
    return _wait_for_all(ranks)


def _wait_for_all(ranks: list[subprocess.Popen[bytes]]) -> int:
    """The first bad exit code: a rank whose peer is gone would wait until its limit."""
    while True:
        codes = [rank.poll() for rank in ranks]
        bad = [code for code in codes if code]
        if bad:
            for rank in ranks:
                rank.kill()
            return 1 if bad[0] < 0 else bad[0]
        if all(code == 0 for code in codes):
            return 0
        time.sleep(0.05)


def measure(order: Order, local: int) -> None:
    """One rank: meet the others, measure together, tell."""
    torch, dist = _library("torch"), _library("torch.distributed")
    rank = order.node * order.local + local
    limit = timedelta(seconds=order.limit_seconds)
    meet = dist.TCPStore(
        order.address, order.port, order.world, rank == 0, timeout=limit, wait_for_workers=False
    )
    store = dist.PrefixStore(order.token, meet)
    device = torch.device(f"cuda:{local}" if order.gpus else "cpu")
    if order.gpus:
        torch.cuda.set_device(device)
    items: list[Item] = []
    if order.collectives:
        dist.init_process_group(
            "nccl" if order.gpus else "gloo",
            store=dist.PrefixStore("ranks", store),
            rank=rank,
            world_size=order.world,
            timeout=limit,
        )
        bench = Collectives(order, torch, dist, device)
        items = [bench.all_reduce(), bench.all_to_all()]
    if order.nixl and local == 0:
        size = items[-1].payload_bytes if items else order.largest_bytes
        items += Nixl(order, torch, store).measure(device, size)
    if rank == 0:
        print("TRANSFER " + json.dumps([asdict(i) for i in items]), flush=True)
    # Rank 0 holds the store: it may go only when nobody needs it any more.
    store.set(f"done {rank}", "yes")
    if rank == 0:
        store.wait([f"done {other}" for other in range(order.world)], limit)
        time.sleep(0.2)
    if order.collectives:
        dist.destroy_process_group()


@dataclass(frozen=True)
class Collectives:
    """Collective operations of all ranks, timed by the slowest one."""

    order: Order
    torch: Any
    dist: Any
    device: Any

    def all_reduce(self) -> Item:
        """Bus bandwidth, as nccl-tests count it: what every link of the ring has to carry."""
        size, times, seconds = self._time(self.dist.all_reduce)
        world = self.order.world
        return Item("all_reduce", _gb(2 * (world - 1) / world * size / seconds), size, times)

    def all_to_all(self) -> Item:
        """What one node sends to all others: the part of the buffers that leaves the node."""

        def exchange(buffer: Any) -> None:
            self.dist.all_to_all_single(self.torch.empty_like(buffer), buffer)

        size, times, seconds = self._time(exchange)
        order = self.order
        leaves = order.local * size * (order.world - order.local) / order.world
        return Item("all_to_all", _gb(leaves / seconds), size, times)

    def _time(self, operation: Any) -> tuple[int, int, float]:
        """Bytes, repetitions, and seconds of one, with as much as fits the time.

        A small pilot first: nobody knows whether the link carries a kilobyte or a terabyte.
        """
        pilot, wanted = self._run(operation, PILOT_BYTES, 1), self.order.seconds
        fits = int(PILOT_BYTES * wanted / (4 * pilot))
        size = max(PILOT_BYTES, min(self.order.largest_bytes, fits))
        size -= size % (4 * self.order.world)
        once = self._run(operation, size, 1)
        times = max(1, min(1000, int(wanted / once)))
        return size, times, self._run(operation, size, times)

    def _run(self, operation: Any, size: int, times: int) -> float:
        """Seconds of one operation, by the slowest rank: the same number on all of them."""
        torch, dist = self.torch, self.dist
        size -= size % (4 * self.order.world)
        buffer = torch.zeros(size // 4, dtype=torch.float32, device=self.device)
        for _ in range(WARM_UPS if times == 1 and size == PILOT_BYTES else 1):
            operation(buffer)
        self._settle()
        began = time.perf_counter()
        for _ in range(times):
            operation(buffer)
        self._settle(barrier=False)
        spent = torch.tensor([(time.perf_counter() - began) / times], device=self.device)
        dist.all_reduce(spent, op=dist.ReduceOp.MAX)
        return max(float(spent.item()), 1e-9)

    def _settle(self, *, barrier: bool = True) -> None:
        if self.order.gpus:
            self.torch.cuda.synchronize()
        if barrier:
            self.dist.barrier()


@dataclass(frozen=True)
class Nixl:
    """Reads from node to node, as decode reads KV: each node from the next one, all at once."""

    order: Order
    torch: Any
    store: Any

    def measure(self, device: Any, size: int) -> list[Item]:
        """Figures of the slowest node, by kind of memory; none where NIXL can't be imported.

        Args:
            device: of this rank; its memory is measured beside the host's where it is a GPU.
            size: bytes that the link carries in a reasonable time.
        """
        if importlib.util.find_spec("nixl") is None:
            print("NIXL " + json.dumps({"missing": True}), flush=True)
            return []
        kinds = {"nixl_dram": self.torch.device("cpu")}
        if self.order.gpus:
            kinds["nixl_vram"] = device
        items = []
        nodes, size = range(self.order.nodes), min(size, LARGEST_READ_BYTES)
        for name, where in kinds.items():
            rate, times = self._read(name, size, where)
            self.store.set(f"{name} rate {self.order.node}", str(rate))
            rates = [float(self.store.get(f"{name} rate {node}")) for node in nodes]
            items.append(Item(name, _gb(min(rates)), size, times))
        lines = Path("/proc/self/maps").read_text().splitlines()
        mapped = sorted({line.split()[-1] for line in lines if "libplugin_" in line})
        print("NIXL " + json.dumps({"missing": False, "plugins": mapped}), flush=True)
        return items

    def _read(self, name: str, size: int, where: Any) -> tuple[float, int]:
        """Bytes per second and repetitions of reads from the next node's memory."""
        order, api = self.order, importlib.import_module("nixl._api")
        me, peer = f"{name}-{order.node}", f"{name}-{(order.node + 1) % order.nodes}"
        wanted = api.nixl_agent_config(backends=list(order.nixl))
        agent = api.nixl_agent(f"{order.token}-{me}", wanted)
        given, taken = self._buffer(size, where), self._buffer(size, where)
        held = [agent.register_memory(list(b)) for b in (given, taken)]
        about = agent.get_serialized_descs(agent.get_xfer_descs(list(given)))
        self.store.set(f"{me} about", agent.get_agent_metadata())
        self.store.set(f"{me} given", about)
        other = agent.add_remote_agent(self.store.get(f"{peer} about"))
        theirs = agent.deserialize_descs(self.store.get(f"{peer} given"))
        mine = agent.get_xfer_descs(list(taken))
        handle = agent.initialize_xfer("READ", mine, theirs, other)
        once = min(_transfer(agent, handle, order.limit_seconds) for _ in range(2))
        times = max(1, min(1000, int(order.seconds / once)))
        began = time.perf_counter()
        for _ in range(times):
            _transfer(agent, handle, order.limit_seconds)
        spent = (time.perf_counter() - began) / times
        # Memory that a peer still reads from must not go.
        self.store.set(f"{me} read", "yes")
        self.store.wait([f"{name}-{node} read" for node in range(order.nodes)])
        agent.release_xfer_handle(handle)
        for registered in held:
            agent.deregister_memory(registered)
        return size / spent, times

    def _buffer(self, size: int, where: Any) -> Any:
        made = self.torch.zeros(
            (DESCRIPTORS, size // DESCRIPTORS), dtype=self.torch.uint8, device=where
        )
        if where.type == "cuda":
            self.torch.cuda.synchronize()
        return made


def _transfer(agent: Any, handle: Any, limit_seconds: float) -> float:
    """Seconds of one transfer; RuntimeError where it fails or never ends."""
    began = time.perf_counter()
    state = agent.transfer(handle)
    while state not in ("DONE", "ERR"):
        if time.perf_counter() - began > limit_seconds:
            raise RuntimeError(f"a NIXL transfer is not done after {limit_seconds:.0f} s")
        state = agent.check_xfer_state(handle)
    if state == "ERR":
        raise RuntimeError("a NIXL transfer failed")
    return max(time.perf_counter() - began, 1e-9)


def _library(name: str) -> Any:
    """A module of vLLM's environment, which this program is checked without."""
    return importlib.import_module(name)


def _gb(bytes_per_second: float) -> float:
    return round(bytes_per_second / 1e9, 4)


if __name__ == "__main__":
    # A rank that is told to end must not leave the others of its node behind.
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    sys.exit(main(sys.argv))
