"""What sizes cost: the memory plan of every network, and seconds of a training step of the small ones on one core.

python -m benchmarks.speed.sizes [--quick] [--json benchmarks/results/sizes.json]

    plans   what a run prints before it starts, for one worker of float32 with micro-batches of 16 and default settings:
            parameters, and bytes of the teacher's phase and of the distillation
    steps   steps of both loops (forward, backward, residual and optimiser under ZeRO 1) on a global batch of 32 fields of
            Darcy flow, without the endpoints and without the control, and a call of the network: seconds of processor time of
            one thread, medians. Processor time is that of the process alone, whatever else the machine does.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import torch

from benchmarks.ranks import spawn
from benchmarks.report import Row, circumstances, finish, options
from benchmarks.speed.steps import STEPS, settings_for, small_set
from pidscale.config import Settings, from_plain
from pidscale.models import PRESETS, architecture, build_denoiser
from pidscale.parallel.mesh import Mesh
from pidscale.pde import build_pde
from pidscale.run.memory import memory_plan
from pidscale.run.preflight import check_model, model_description

PDE = "darcy"
BATCH = 32
CALLED = 64  # fields in a call
POINTS = (32, 64)
PLANNED = (32, 64, 128, 256)
SIZES = ("tiny", "small")
ALL = ("tiny", "small", "medium", "large", "xl")
REPEATS = 5
LEAST = (16,)  # points of a test


def plans(points: tuple[int, ...], sizes: Collection[str]) -> list[Row]:
    """Return the plan of each network of these sizes on each grid."""
    rows = []
    pde = build_pde(PDE)
    for kind, presets in PRESETS.items():
        for size in [name for name in presets if name in sizes]:
            for side in points:
                plain = {"pde": {"name": PDE, "points": side}, "model": {"kind": kind, "size": size}}
                settings = from_plain(Settings, plain | {"cluster": {"zero_stage": 0}})
                description = model_description(settings, len(pde.channels))
                shape = pde.grid(side).shape
                parameters = check_model(settings, description, shape)
                row: Row = {"model": kind, "size": size, "points": side, "parameters": parameters}
                for phase in ("teacher", "distill"):
                    row[phase] = memory_plan(settings, description, shape, phase, parameters).total
                rows.append(row)
    return rows


def seconds(job: Callable[[], object], repeats: int) -> float:
    """Return the processor time of a job, a median after one turn that makes tables."""
    spent = []
    for _ in range(repeats + 1):
        began = time.process_time()
        job()
        spent.append(time.process_time() - began)
    return statistics.median(spent[1:])


def _steps(rank: int, world: int, folder: Path, size: str, points: int, repeats: int) -> Row:
    """Measure one size on one grid, in a process of its own."""
    torch.set_num_threads(1)
    mesh = Mesh.over(rank, world, torch.device("cpu"), 1)
    settings = settings_for(small_set(folder, PDE, points), PDE, points, {"kind": "unet", "size": size}, BATCH)
    row: Row = {"model": "unet", "size": size, "points": points, "batch": BATCH}
    for name, step in STEPS.items():
        row[f"{name}_seconds"] = seconds(step(settings, mesh), repeats)
    network = build_denoiser(architecture("unet", size, 2)).eval()
    eps = torch.randn(CALLED, 2, points, points)
    with torch.no_grad():
        row["call_ms"] = 1e3 * seconds(partial(network, eps, torch.ones(CALLED)), repeats) / CALLED
    return row


def main() -> None:
    """Compute the plans, measure the steps and write the rows."""
    parser = options(__doc__, "sizes")
    parser.add_argument("--quick", action="store_true", help="the least of everything, for a test")
    asked = parser.parse_args()
    sizes = SIZES[:1] if asked.quick else SIZES
    repeats = 1 if asked.quick else REPEATS
    with tempfile.TemporaryDirectory() as folder:
        steps = [
            spawn(_steps, 1, Path(folder), size, side, repeats, timeout=3600)[0]
            for size in sizes
            for side in (LEAST if asked.quick else POINTS)
        ]
    result = {"plans": plans(LEAST, sizes) if asked.quick else plans(PLANNED, ALL), "steps": steps}
    finish(asked.json, result | {"meta": circumstances(repeats=repeats)}, "sizes")


if __name__ == "__main__":
    main()
