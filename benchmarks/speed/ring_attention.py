"""Attention of split fields, two ways: keys and values gathered at once, as engine/spread does it, or passed round a ring.

python -m benchmarks.speed.ring_attention [--repeats 21] [--json benchmarks/results/ring_attention.json]

Both send the same bytes. The ring holds two blocks in place of all and computes while the next block is on its way, but in as
many smaller products as there are ranks, whose results have to be joined by their softmax sums (Liu et al., Ring attention
with blockwise transformers for near-infinite context, 2023). Forward passes on the CPU of two ranks, which is where they are
timed; benchmarks.speed.space measures the same beside what else a split costs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from benchmarks.ranks import spawn
from benchmarks.report import Row, circumstances, finish, options
from pidscale.parallel.mesh import Mesh, Space
from pidscale.parallel.reduce import gather_rows
from pidscale.parallel.split import Cut

CHANNELS = 128
HEADS = 4
SIDES = (16, 32, 64, 128)  # points a side of the coarse field
RANKS = 2
REPEATS = 21
_partial = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def _heads(x_BCT: Tensor) -> Tensor:
    return x_BCT.unflatten(1, (HEADS, -1)).transpose(-1, -2).contiguous()


def gathered(q_BCyX: Tensor, both_BCyX: Tensor, space: Space) -> Tensor:
    """Return attention by gathering keys and values.

    Args:
        q_BCyX: Queries [B, C, y, X] of this rank's rows.
        both_BCyX: Keys and values [B, 2 C, y, X] of the same rows.
        space: The ranks that share the field. One all-gather of `both_BCyX`.

    Returns:
        [B, heads, y X, C / heads].
    """
    cut = Cut.even(both_BCyX.shape[-2] * space.size, space.size)
    k, v = (_heads(part.flatten(2)) for part in gather_rows(both_BCyX, cut, space).chunk(2, dim=1))
    return functional.scaled_dot_product_attention(_heads(q_BCyX.flatten(2)), k, v)


def ring(q_BCyX: Tensor, both_BCyX: Tensor, space: Space) -> Tensor:
    """Return the same as `gathered`, by size - 1 messages to the rank above, each while the block at hand is multiplied."""
    q = _heads(q_BCyX.flatten(2))
    block = both_BCyX.contiguous()
    total = torch.zeros(())
    weight = torch.full((1, 1, 1), -torch.inf)
    for turn in range(space.size):
        following = torch.empty_like(block)
        flights = []
        if turn < space.size - 1:
            pair = [dist.P2POp(dist.isend, block, space.above), dist.P2POp(dist.irecv, following, space.below)]
            flights = dist.batch_isend_irecv(pair)
        k, v = (_heads(part.flatten(2)) for part in block.chunk(2, dim=1))
        own, sums = _partial(q, k, v)
        joined = torch.logaddexp(weight, sums)
        total = total * (weight - joined).exp()[..., None] + own * (sums - joined).exp()[..., None]
        for flight in flights:
            flight.wait()
        weight = joined
        block = following
    return total


WAYS: dict[str, Callable[[Tensor, Tensor, Space], Tensor]] = {"gathered": gathered, "ring": ring}


def _seconds(q: Tensor, both: Tensor, space: Space, repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, in turns."""
    seen: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(repeats):
        for name, way in WAYS.items():
            dist.barrier()
            start = time.perf_counter()
            way(q, both, space)
            seen[name].append(time.perf_counter() - start)
    return seen


def compare(rank: int, world: int, repeats: int) -> list[Row]:
    """Return the seconds of each way, one thread a rank, and the bytes of keys and values it holds, by side of the field."""
    torch.set_num_threads(1)
    space = Mesh.over(rank, world, torch.device("cpu"), world).space
    rows = []
    for side in SIDES:
        generator = torch.Generator().manual_seed(rank)
        q, both = (torch.randn(1, n * CHANNELS, side // world, side, generator=generator) for n in (1, 2))
        torch.testing.assert_close(ring(q, both, space), gathered(q, both, space), rtol=1e-4, atol=1e-5)
        seen = _seconds(q, both, space, repeats)
        ratios = sorted(b / a for a, b in zip(seen["gathered"], seen["ring"], strict=True))
        quarter = len(ratios) // 4
        rows.append(
            {
                "side": side,
                "ranks": world,
                "seconds": {name: statistics.median(values) for name, values in seen.items()},
                "ratio": statistics.median(ratios),
                "low": ratios[quarter],
                "high": ratios[-1 - quarter],
                "bytes": {"gathered": world * both.nbytes, "ring": 2 * both.nbytes},
            }
        )
    return rows


def main() -> None:
    """Time both ways and write the rows."""
    parser = options(__doc__, "ring_attention")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    arguments = parser.parse_args()
    rows = spawn(compare, RANKS, arguments.repeats)[0]
    finish(arguments.json, {"rows": rows, "meta": circumstances(repeats=arguments.repeats)})


if __name__ == "__main__":
    main()
