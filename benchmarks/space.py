"""What sharing a field costs: messages and bytes of residuals and layers, and the time of steps, in one run.

python -m benchmarks.space [--json benchmarks/results/space.json] [--page docs/split_measured.md] [--repeats 7]

Messages and bytes are counted on an inner rank of four, which has a neighbour on each side, forward and backward; a message
counts where it is sent, a collective as one. Steps are whole ones (ZeRO 1, accumulation 1) on one global batch, of one rank,
of two ranks that share the samples and of two that share each field, one thread each; they take turns. The share of time is
that in which a rank stands in an exchange of its space group, waiting for the other included. Attention is timed both ways
that a field of keys and values can go (benchmarks/ring.py).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.ranks import spawn
from benchmarks.report import finish, options, processor
from benchmarks.ring import compare
from benchmarks.space_page import page
from benchmarks.steps import STEPS, settings_for, small_set
from pidscale.engine.spread import spread
from pidscale.engine.window import TileWindow
from pidscale.models import architecture, build_denoiser
from pidscale.models.fno import SpectralConv
from pidscale.ops.grid import Grid
from pidscale.parallel.mesh import Mesh, Traffic
from pidscale.parallel.split import Cut
from pidscale.pde import PDES, build_pde
from pidscale.pde.base import draw_params, residual_shares
from pidscale.run.phases import versions

POINTS, RANKS, INNER = 128, 4, 1
SIZES = (128, 256, 512)
MODEL = {"kind": "unet", "size": "tiny"}
MESHES = {"1 rank": (1, 1), "2 ranks, a share of the samples each": (2, 1), "2 ranks, half of each field each": (2, 2)}
BATCH = 4
ATTENTION_REPEATS = 21


def _taken(traffic: Traffic, case: str, way: str) -> list[dict[str, Any]]:
    rows = [
        {"case": case, "way": way, "kind": kind, "messages": count, "bytes": traffic.bytes[kind]}
        for kind, count in sorted(traffic.messages.items())
    ]
    traffic.clear()
    return rows


def _residuals(mesh: Mesh) -> list[dict[str, Any]]:
    rows = []
    for name in sorted(PDES):
        pde = build_pde(name)
        window = TileWindow(pde.grid(POINTS), Cut.even(POINTS, RANKS), mesh.space)
        x = torch.randn(1, len(pde.channels), POINTS // RANKS, POINTS, requires_grad=True)
        shares = residual_shares(pde, window, x, draw_params(pde, 0, "x", range(1)).float())
        rows += _taken(mesh.space.traffic, f"residual of {name}", "forward")
        sum(share.sum() for share in shares.values() if share.requires_grad).backward()  # type: ignore[union-attr]
        rows += _taken(mesh.space.traffic, f"residual of {name}", "backward")
    return rows


def _networks(mesh: Mesh) -> list[dict[str, Any]]:
    rows = []
    for kind in ("unet", "fno"):
        window = TileWindow(Grid((POINTS, POINTS)), Cut.even(POINTS, RANKS, 4), mesh.space)
        model = spread(build_denoiser(architecture(kind, "tiny", 2)), window)
        x = torch.randn(1, 2, POINTS // RANKS, POINTS)
        output = model(x, torch.ones(1))
        rows += _taken(mesh.space.traffic, f"{kind}_tiny", "forward")
        output.sum().backward()
        rows += _taken(mesh.space.traffic, f"{kind}_tiny", "backward")
    for points in SIZES:
        window = TileWindow(Grid((points, points)), Cut.even(points, RANKS), mesh.space)
        layer = spread(torch.nn.ModuleList([SpectralConv(24, 24, 8)]), window)[0]
        output = layer(torch.randn(1, 24, points // RANKS, points, requires_grad=True))
        rows += _taken(mesh.space.traffic, f"spectral layer at {points}", "forward")
        output.sum().backward()
        rows += _taken(mesh.space.traffic, f"spectral layer at {points}", "backward")
    return rows


def _count(rank: int, world: int) -> list[dict[str, Any]]:
    mesh = Mesh.over(rank, world, torch.device("cpu"), world)
    return _residuals(mesh) + _networks(mesh)


def _time(rank: int, world: int, space: int, folder: Path, steps: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each step, and those spent in exchanges, after two that warm up."""
    torch.set_num_threads(1)
    mesh, found = Mesh.over(rank, world, torch.device("cpu"), space), {}
    settings = settings_for(folder, "poisson", POINTS, MODEL, BATCH)
    for name, make in STEPS.items():
        step, seen = make(settings, mesh), []
        for _ in range(steps + 2):
            mesh.barrier()
            mesh.space.traffic.clear()
            start = time.perf_counter()
            step()
            seen.append((time.perf_counter() - start, mesh.space.traffic.seconds))
        found[name] = seen[2:]
    return found


def times(repeats: int, steps: int, folder: Path) -> list[dict[str, Any]]:
    """Medians over repeats of the median step, by mesh and loop; the slowest rank counts."""
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
        shares = statistics.median(waited / value for value, waited in values)
        rows.append(
            {
                "step": name,
                "mesh": label,
                "seconds": statistics.median(seconds),
                "low": seconds[0],
                "high": seconds[-1],
                "exchange_share": shares,
            }
        )
    return rows


def main() -> None:
    """Count, time, print, write JSON and the page."""
    parser = options(__doc__, "space", "docs/split_measured.md")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=7)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"rows": spawn(_count, RANKS)[INNER]}
    result["attention"] = spawn(compare, 2, ATTENTION_REPEATS)[0]
    with tempfile.TemporaryDirectory() as folder:
        result["steps"] = times(arguments.repeats, arguments.steps, Path(folder))
    result["meta"] = {
        "versions": versions(),
        "machine": processor(),
        "points": POINTS,
        "batch": BATCH,
        "repeats": arguments.repeats,
    }
    finish(arguments, result, page)


if __name__ == "__main__":
    main()
