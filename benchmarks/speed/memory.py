"""Peak memory of a rank against how many share a field, and the wall: a step that one process cannot make and four can.

python -m benchmarks.speed.memory [--json benchmarks/results/memory.json]

Peaks are the resident set sizes of fresh processes, one a rank, that make two steps (ZeRO 1, one micro-step of two samples).
The C library gives back what is freed at once (MALLOC_MMAP_THRESHOLD_): by itself it keeps freed blocks of middling size,
which then count to a process that holds them no longer, and tiles have more of those than whole fields.
`fixed` is the peak of the same processes on the smallest grid that four ranks can share. The wall is a whole distillation of
one step (endpoint by the teacher, scales, residuals in both norms, picture, consolidation) in processes whose address space
is limited (RLIMIT_AS), all of them alike.
"""

from __future__ import annotations

import os
import resource
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.ranks import spawn
from benchmarks.report import Row, circumstances, finish, options
from benchmarks.speed.steps import STEPS, publish_fresh_teacher, settings_for, small_set
from pidscale.config import Settings, UserError
from pidscale.dataset.problem import open_problem
from pidscale.distill import loop as distill_loop
from pidscale.distill.endpoints.rollout import open_teacher
from pidscale.parallel.mesh import Mesh
from pidscale.run.host_limits import memory_limit
from pidscale.run.memory import memory_plan
from pidscale.run.preflight import check_model, in_our_words, plan_lines, warning
from pidscale.run.reporting import Reporter

LARGE = 512  # points a side
SMALLEST = 16
BATCH = 2
SPACE = (1, 2, 4)
CASES = (("unet", "teacher"), ("unet", "student"), ("fno", "teacher"))
ALLOWED = 1.15  # of (fixed part + activations / P)
WALL_POINTS = 1024
WALL_LIMIT = 5 * 2**29  # bytes of address space
WALL_MODEL = {"kind": "unet", "size": "tiny", "change": {"attention_levels": 0}}


def _peak(rank: int, world: int, shards: Path, kind: str, name: str, points: int) -> int:
    """Bytes of this process at most, after two steps."""
    torch.set_num_threads(1)
    mesh = Mesh.over(rank, world, torch.device("cpu"), world)
    step = STEPS[name](settings_for(shards, "poisson", points, {"kind": kind, "size": "tiny"}, BATCH), mesh)
    step()
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peaks(folder: Path) -> list[Row]:
    """Return one row for each case and number of ranks that share a field."""
    rows: list[Row] = []
    for kind, name in CASES:
        activations = 0
        for space in SPACE:
            found = {}
            for points in (SMALLEST, LARGE):
                shards = small_set(folder, "poisson", points)
                found[points] = max(spawn(_peak, space, shards, kind, name, points, timeout=1200))
            fixed = found[SMALLEST]
            peak = found[LARGE]
            activations = activations or peak - fixed  # those of one process
            needed = fixed + activations / space
            row = {
                "model": kind,
                "step": name,
                "space": space,
                "fixed": fixed,
                "peak": peak,
                "allowed": ALLOWED * needed,
            }
            rows.append(row | {"activations": activations, "ratio": peak / needed})
    return rows


def wall_settings(shards: Path, teacher: Path, workers: int) -> Settings:
    """Return settings of a distillation of one step on one sample."""
    settings = settings_for(shards, "poisson", WALL_POINTS, WALL_MODEL, 1)
    one = {
        "teacher": str(teacher),
        "steps": 1,
        "solver_steps": 2,
        "scale_steps": 2,
        "buffer_rows": 1,
        "reuse": 1,
        "control": False,
    }
    return replace(
        settings,
        distill=replace(settings.distill, **one),  # type: ignore[arg-type]
        cluster=replace(settings.cluster, workers=workers, space=workers),
    )


def _distil(rank: int, world: int, shards: Path, teacher: Path, folder: Path) -> Row:
    """What the plan says, and what comes of it."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (WALL_LIMIT, WALL_LIMIT))
    settings = wall_settings(shards, teacher, world)
    problem = open_problem(settings.pde, settings.data)
    description = dict(open_teacher(settings, folder, problem, None).card.architecture)
    parameters = check_model(settings, description, problem.grid.shape)
    plan = memory_plan(settings, description, problem.grid.shape, "distill", parameters)
    found: Row = {"space": world, "plan": plan_lines(plan), "warning": warning(plan, memory_limit(world))}
    mesh = Mesh.over(rank, world, torch.device("cpu"), world)
    try:
        with in_our_words(settings, "distill"):
            distill_loop.train(settings, folder / f"space{world}", mesh, Reporter())
        found["outcome"] = "the student is written"
    except UserError as error:
        found["outcome"] = f"error: {error}"
    return found | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def wall(folder: Path) -> list[Row]:
    """Return what comes of the same step by one process and by four, each under the same limit."""
    shards = small_set(folder, "poisson", WALL_POINTS)
    teacher = folder / "teacher"
    publish_fresh_teacher(wall_settings(shards, teacher, 1), teacher)
    with mock.patch.dict(os.environ, {"MALLOC_ARENA_MAX": "1"}):  # an arena for each thread reserves addresses only
        return [spawn(_distil, space, shards, teacher, folder, timeout=1800)[0] for space in (1, 4)]


def main() -> None:
    """Measure and write the rows."""
    arguments = options(__doc__, "memory").parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = {"wall": wall(Path(folder))}
        with mock.patch.dict(os.environ, {"MALLOC_MMAP_THRESHOLD_": str(2**20)}):
            result["rows"] = peaks(Path(folder))
    result["meta"] = circumstances(
        points=LARGE, smallest=SMALLEST, batch=BATCH, wall_points=WALL_POINTS, wall_limit=WALL_LIMIT
    )
    finish(arguments.json, result, "memory")


if __name__ == "__main__":
    main()
