"""Checks of the plugin's collectives against plain PyTorch, and the ranks that run them.

Ranks are forked after the imports (vLLM's take seconds) and talk over Gloo on loopback, as engines
do.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import itertools
import multiprocessing
import tempfile

import torch
import torch.distributed as dist
from outcomes import outcome, raises
from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator


def size_patterns(world):
    """Tokens per rank: even, uneven, some ranks without any, one rank with all, none at all."""
    return [
        [4] * world,
        [1 + 3 * rank for rank in range(world)],
        [0 if rank % 2 else 5 for rank in range(world)],
        [0] * (world - 1) + [7],
        [0] * world,
    ]


def of_rank(rank, rows, shape, dtype):
    """What a rank holds; every rank can compute every other's."""
    source = torch.Generator().manual_seed(1000 + rank)
    return torch.randint(-100, 100, (rows, *shape), generator=source).to(dtype)


def gathers_a_tensor(rank, world, group):
    kinds = [
        ((16,), torch.float32),
        ((2,), torch.int64),
        ((3, 5), torch.bfloat16),
        ((), torch.int32),
    ]
    for sizes, (shape, dtype) in itertools.product(size_patterns(world), kinds):
        mine = of_rank(rank, sizes[rank], shape, dtype)
        expected = torch.cat([of_rank(r, n, shape, dtype) for r, n in enumerate(sizes)])
        got = group.all_gatherv(mine, dim=0, sizes=sizes)
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def gathers_a_list_of_tensors(rank, world, group):
    kinds = [((16,), torch.bfloat16), ((3,), torch.float32), ((3,), torch.int64)]
    for sizes in size_patterns(world):
        got = group.all_gatherv([of_rank(rank, sizes[rank], *k) for k in kinds], dim=0, sizes=sizes)
        for tensor, kind in zip(got, kinds, strict=True):
            expected = torch.cat([of_rank(r, n, *kind) for r, n in enumerate(sizes)])
            torch.testing.assert_close(tensor, expected, rtol=0, atol=0)


def gathers_equal_parts_without_sizes(rank, world, group):
    expected = torch.cat([of_rank(r, 3, (4,), torch.float32) for r in range(world)])
    torch.testing.assert_close(group.all_gatherv(of_rank(rank, 3, (4,), torch.float32)), expected)


def gathers_along_another_dimension(rank, world, group):
    sizes = [1 + r for r in range(world)]
    parts = [of_rank(r, n, (6,), torch.float32).t() for r, n in enumerate(sizes)]
    torch.testing.assert_close(
        group.all_gatherv(parts[rank], dim=1, sizes=sizes), torch.cat(parts, dim=1)
    )


def scatters_the_sum(rank, world, group):
    for sizes, dtype in itertools.product(size_patterns(world), (torch.float32, torch.bfloat16)):
        parts = [of_rank(r, sum(sizes), (8,), dtype) for r in range(world)]
        before = parts[rank].clone()
        got = group.reduce_scatterv(parts[rank], dim=0, sizes=sizes)
        # Whole numbers below 256 have no rounding in bfloat16 either; sums of four may.
        expected = torch.stack([p.double() for p in parts]).sum(0).split(sizes)[rank].to(dtype)
        torch.testing.assert_close(
            got, expected, rtol=0.01 if dtype == torch.bfloat16 else 0, atol=0
        )
        torch.testing.assert_close(parts[rank], before, rtol=0, atol=0)


def scatters_equal_parts_of_the_last_dimension_by_default(rank, world, group):
    parts = [of_rank(r, 2, (3 * world,), torch.float32) for r in range(world)]
    expected = torch.stack(parts).sum(0).chunk(world, dim=-1)[rank]
    torch.testing.assert_close(group.reduce_scatterv(parts[rank]), expected)


def refuses_sizes_that_do_not_fit(rank, world, group):
    raises(ValueError, f"{world} ranks", group.all_gatherv, torch.ones(1, 2), 0, [1] * (world + 1))
    raises(ValueError, "sizes say", group.all_gatherv, torch.ones(2, 2), 0, [1] * world)
    raises(ValueError, "add up", group.reduce_scatterv, torch.ones(3 * world, 2), 0, [1] * world)
    if world > 1:
        raises(ValueError, "equal parts", group.reduce_scatterv, torch.ones(world + 1, 2), 0)


COLLECTIVES = (
    gathers_a_tensor,
    gathers_a_list_of_tensors,
    gathers_equal_parts_without_sizes,
    gathers_along_another_dimension,
    scatters_the_sum,
    scatters_equal_parts_of_the_last_dimension_by_default,
    refuses_sizes_that_do_not_fit,
)


def one_rank(rank, world, rendezvous, results):
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    group = CpuCommunicator(dist.group.WORLD, torch.device("cpu"), dist.group.WORLD, "ep:0")
    results.put((rank, {f.__name__: outcome(f, rank, world, group) for f in COLLECTIVES}))
    dist.barrier()


def collectives(world):
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            fork.Process(target=one_rank, args=(r, world, f"{folder}/meet", results))
            for r in range(world)
        ]
        for process in ranks:
            process.start()
        answers = dict(results.get(timeout=60) for _ in ranks)
        for process in ranks:
            process.join(30)
    for check in COLLECTIVES:
        failed = {
            rank: a[check.__name__] for rank, a in answers.items() if a[check.__name__] != "passed"
        }
        yield f"{check.__name__}[{world}]", str(failed) if failed else "passed"
