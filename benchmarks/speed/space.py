"""What sharing a field costs: messages and bytes of residuals and layers, and the time of steps, in one run.

python -m benchmarks.speed.space [--json benchmarks/results/space.json] [--repeats 5] [--steps 7]

Messages and bytes are counted on an inner rank of four, which has a neighbour on each side, forward and backward; a message
counts where it is sent, a collective as one. Steps are whole ones (ZeRO 1, accumulation 1) on one global batch, of one rank,
of two ranks that share the samples and of two that share each field, one thread each; they take turns. The share of time is
that in which a rank stands in an exchange of its space group, waiting for the other included. Attention is timed both ways
that a field of keys and values can go (benchmarks.speed.ring_attention).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.ranks import spawn
from benchmarks.report import Row, circumstances, finish, options
from benchmarks.speed import ring_attention
from benchmarks.speed.steps import STEPS, settings_for, small_set
from pidscale.engine.spread import spread
from pidscale.engine.window import TileWindow
from pidscale.models import architecture, build_denoiser
from pidscale.models.fno import SpectralConv
from pidscale.ops.grid import Grid
from pidscale.parallel.mesh import Mesh, Traffic
from pidscale.parallel.split import Cut
from pidscale.pde import PDES, build_pde
from pidscale.pde.parameters import draw_params
from pidscale.pde.residuals import residual_shares

POINTS = 128
RANKS = 4
INNER = 1  # the rank that counts
SIZES = (128, 256, 512)
MODEL = {"kind": "unet", "size": "tiny"}
MESHES = {"1 rank": (1, 1), "2 ranks, a share of the samples each": (2, 1), "2 ranks, half of each field each": (2, 2)}
BATCH = 4
WARM = 2  # steps before the clock starts


def _taken(traffic: Traffic, case: str, way: str) -> list[Row]:
    """What was sent since the last call."""
    rows = [
        {"case": case, "way": way, "kind": kind, "messages": count, "bytes": traffic.bytes[kind]}
        for kind, count in sorted(traffic.messages.items())
    ]
    traffic.clear()
    return rows


def _residuals(mesh: Mesh) -> list[Row]:
    """Messages of each equation's residual."""
    traffic = mesh.space.traffic
    rows = []
    for name in sorted(PDES):
        pde = build_pde(name)
        window = TileWindow(pde.grid(POINTS), Cut.even(POINTS, RANKS), mesh.space)
        x = torch.randn(1, len(pde.channels), POINTS // RANKS, POINTS, requires_grad=True)
        shares = residual_shares(pde, window, x, draw_params(pde, 0, "x", range(1)).float())
        rows += _taken(traffic, f"residual of {name}", "forward")
        sum(share.sum() for share in shares.values() if share.requires_grad).backward()  # type: ignore[union-attr]
        rows += _taken(traffic, f"residual of {name}", "backward")
    return rows


def _networks(mesh: Mesh) -> list[Row]:
    """Messages of whole networks, and of a spectral layer by the size of its field."""
    traffic = mesh.space.traffic
    rows = []
    for kind in ("unet", "fno"):
        window = TileWindow(Grid((POINTS, POINTS)), Cut.even(POINTS, RANKS, 4), mesh.space)
        model = spread(build_denoiser(architecture(kind, "tiny", 2)), window)
        output = model(torch.randn(1, 2, POINTS // RANKS, POINTS), torch.ones(1))
        rows += _taken(traffic, f"{kind}_tiny", "forward")
        output.sum().backward()
        rows += _taken(traffic, f"{kind}_tiny", "backward")
    for points in SIZES:
        window = TileWindow(Grid((points, points)), Cut.even(points, RANKS), mesh.space)
        layer = spread(torch.nn.ModuleList([SpectralConv(24, 24, 8)]), window)[0]
        output = layer(torch.randn(1, 24, points // RANKS, points, requires_grad=True))
        rows += _taken(traffic, f"spectral layer at {points}", "forward")
        output.sum().backward()
        rows += _taken(traffic, f"spectral layer at {points}", "backward")
    return rows


def _count(rank: int, world: int) -> list[Row]:
    mesh = Mesh.over(rank, world, torch.device("cpu"), world)
    return _residuals(mesh) + _networks(mesh)


def _time(rank: int, world: int, space: int, folder: Path, steps: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each step by loop, and those spent in exchanges."""
    torch.set_num_threads(1)
    mesh = Mesh.over(rank, world, torch.device("cpu"), space)
    settings = settings_for(folder, "poisson", POINTS, MODEL, BATCH)
    found = {}
    for name, make in STEPS.items():
        step = make(settings, mesh)
        seen = []
        for _ in range(WARM + steps):
            mesh.barrier()
            mesh.space.traffic.clear()
            start = time.perf_counter()
            step()
            seen.append((time.perf_counter() - start, mesh.space.traffic.seconds))
        found[name] = seen[WARM:]
    return found


def times(repeats: int, steps: int, folder: Path) -> list[Row]:
    """Return medians over repeats of the median step, by mesh and loop; the slowest rank counts."""
    shards = small_set(folder, "poisson", POINTS)
    seen: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(repeats):
        for label, (world, space) in MESHES.items():
            ranks = spawn(_time, world, space, shards, steps, timeout=600)
            for name in STEPS:
                each = [[statistics.median(values) for values in zip(*rank[name], strict=True)] for rank in ranks]
                seen.setdefault((name, label), []).append(max(map(tuple, each)))
    rows = []
    for (name, label), values in seen.items():
        seconds = sorted(value for value, _ in values)
        rows.append(
            {
                "step": name,
                "mesh": label,
                "seconds": statistics.median(seconds),
                "low": seconds[0],
                "high": seconds[-1],
                "exchange_share": statistics.median(waited / value for value, waited in values),
            }
        )
    return rows


def main() -> None:
    """Count, time and write the rows."""
    parser = options(__doc__, "space")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=7)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"rows": spawn(_count, RANKS)[INNER]}
    result["attention"] = spawn(ring_attention.compare, ring_attention.RANKS, ring_attention.REPEATS)[0]
    with tempfile.TemporaryDirectory() as folder:
        result["steps"] = times(arguments.repeats, arguments.steps, Path(folder))
    result["meta"] = circumstances(points=POINTS, batch=BATCH, repeats=arguments.repeats)
    finish(arguments.json, result, "space")


if __name__ == "__main__":
    main()
