"""What the student waits for endpoints from each source, at K = 8 and 32, R = 1 and 8; and the size of teacher calls.

python -m benchmarks.speed.rollout [--json benchmarks/results/rollout.json] [--repeats 3]

Every source trains the same student (UNet tiny on Poisson, real ZeRO, both norms of the residual) in a process of its own
with both cores: `inline` and `shards` give the student two threads, `thread` and `actors` one to the student and one to the
teacher. Sources take turns. Steps of the first two passes through the buffer of endpoints, in which every row is new, are not
counted. Endpoints a second are those of the teacher alone, one thread, by the number of samples in a call.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.ranks import spawn
from benchmarks.report import Row, circumstances, finish, options
from benchmarks.speed.steps import publish_fresh_teacher, settings_for, small_set, student_in_training
from pidscale.config import Settings, to_plain
from pidscale.dataset.problem import open_problem
from pidscale.distill import loop
from pidscale.distill.endpoints.actors import Served, start_actors
from pidscale.distill.endpoints.make import make_endpoint_set
from pidscale.distill.endpoints.rollout import open_rollout, open_teacher
from pidscale.meter import StepTimer
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh

POINTS = 32
BATCH = 16
BUFFER_ROWS = 4  # rows of the buffer of endpoints
MODEL = {"kind": "unet", "size": "tiny"}
CALLS = (8, 32)
REUSES = (1, 8)
THREADS = {"inline": 2, "thread": 1, "actors": 1, "shards": 2}
WARM = 2 * BUFFER_ROWS
STEPS = 4 * BUFFER_ROWS * 2  # rows of R = 8 are needed at an even rate: two passes hold one of each eighth
CHUNKS = (1, 2, 4, 8, 16, 32, 64)


def settings_of(folder: Path, source: str, calls: int, reuse: int) -> Settings:
    """Return settings of a distillation of one rank, by `dpm2m`, which takes one call a step."""
    settings = settings_for(folder / f"poisson{POINTS}", "poisson", POINTS, MODEL, BATCH)
    own = {
        "source": source,
        "solver": "dpm2m",
        "solver_steps": calls,
        "buffer_rows": BUFFER_ROWS,
        "reuse": reuse,
        "steps": WARM + STEPS,
        "chunk": BATCH,
        "ahead": 2,
        "control": False,
        "teacher": str(folder / "teacher"),
        "endpoints": str(folder / f"endpoints-{calls}-{reuse}"),
    }
    return replace(settings, distill=replace(settings.distill, **own))  # type: ignore[arg-type]


def _actors(settings: Settings, folder: Path, device: torch.device) -> Served:
    """The supply of a Ray of its own, whose actors make endpoints."""
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    actors = start_actors(settings, folder, to_plain(settings), None)
    return Served(actors, 0, settings.distill.ahead, 600.0, device)


def _train(rank: int, world: int, folder: Path, source: str, calls: int, reuse: int) -> dict[str, float]:
    """Seconds of the counted steps, and of waiting in them."""
    torch.set_num_threads(THREADS[source])
    settings = settings_of(folder, source, calls, reuse)
    mesh = Mesh()
    supply = _actors(settings, folder, mesh.device) if source == "actors" else None
    problem = open_problem(settings.pde, settings.data)
    teacher = open_teacher(settings, folder, problem, mesh.device)
    window = Window(problem.grid)
    batches = loop.open_batches(settings, teacher, window, mesh, supply)
    student = student_in_training(settings, teacher, window, mesh)
    batches.start(0, WARM + STEPS)
    timer = StepTimer()
    began = 0.0
    for step in range(WARM + STEPS):
        if step == WARM:
            timer.take()
            began = time.perf_counter()
        student.gradients(batches.at(step, timer.section), timer)
        with timer.section("optimiser"):
            student.update(1e-4, step)
    seconds = time.perf_counter() - began
    waited = timer.take()["wait"]
    batches.supply.close()
    if source == "actors":
        import ray

        ray.shutdown()
    return {"seconds": seconds, "waited": waited}


def _row(source: str, calls: int, reuse: int, seen: list[dict[str, float]]) -> Row:
    """Samples a second and the share of waiting, over the turns."""
    rates = sorted(BATCH * STEPS / one["seconds"] for one in seen)
    shares = sorted(one["waited"] / one["seconds"] for one in seen)
    return {
        "source": source,
        "calls": calls,
        "reuse": reuse,
        "samples_per_second": statistics.median(rates),
        "low": rates[0],
        "high": rates[-1],
        "wait_share": statistics.median(shares),
        "wait_low": shares[0],
        "wait_high": shares[-1],
    }


def sources(folder: Path, repeats: int) -> list[Row]:
    """Return one row for each source, K and R."""
    seen: dict[tuple[str, int, int], list[dict[str, float]]] = {}
    for calls, reuse in product(CALLS, REUSES):
        make_endpoint_set(settings_of(folder, "shards", calls, reuse), folder, parallel=False)
        for _ in range(repeats):
            for source in THREADS:
                with mock.patch.dict(os.environ, {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}):
                    found = spawn(_train, 1, folder, source, calls, reuse, timeout=900)[0]
                seen.setdefault((source, calls, reuse), []).append(found)
    return [_row(*case, turns) for case, turns in seen.items()]


def _endpoints(rank: int, world: int, folder: Path, repeats: int) -> list[Row]:
    """Endpoints a second of the teacher alone by samples in a call, sizes in turns."""
    torch.set_num_threads(1)
    settings = settings_of(folder, "inline", CALLS[0], 1)
    seen: dict[int, list[float]] = {chunk: [] for chunk in CHUNKS}
    problem = open_problem(settings.pde, settings.data)
    rollout = open_rollout(settings, open_teacher(settings, folder, problem, torch.device("cpu")))
    for turn in range(repeats + 1):  # the first one warms up
        for chunk in CHUNKS:
            chunked = replace(rollout, chunk=chunk)
            began = time.perf_counter()
            chunked.endpoints(torch.arange(max(CHUNKS)))
            if turn:
                seen[chunk].append(max(CHUNKS) / (time.perf_counter() - began))
    base = seen[1]
    return [
        {
            "chunk": chunk,
            "endpoints_per_second": statistics.median(rates),
            "low": min(rates),
            "high": max(rates),
            "ratio": statistics.median(a / b for a, b in zip(rates, base, strict=True)),
        }
        for chunk, rates in seen.items()
    ]


def main() -> None:
    """Train, time and write the rows."""
    parser = options(__doc__, "rollout")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_set(folder, "poisson", POINTS)
        publish_fresh_teacher(settings_of(folder, "inline", CALLS[0], 1), folder / "teacher")
        result: dict[str, Any] = {"endpoints": spawn(_endpoints, 1, folder, 3 * arguments.repeats, timeout=900)[0]}
        result["rows"] = sources(folder, arguments.repeats)
    result["meta"] = circumstances(
        points=POINTS, batch=BATCH, buffer_rows=BUFFER_ROWS, repeats=arguments.repeats, steps=STEPS, warm=WARM
    )
    finish(arguments.json, result, "rollout")


if __name__ == "__main__":
    main()
