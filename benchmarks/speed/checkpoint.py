"""What a checkpoint costs: the seconds that a step waits, the seconds until it is sealed, its bytes, and each rank's memory.

python -m benchmarks.speed.checkpoint [--json benchmarks/results/checkpoint.json] [--size large] [--repeats 3]

Two ranks train a UNet under ZeRO 3 on fields of 16 points and write checkpoints in two ways by turns:

- `beside`: as a run does (engine/sealer.py): a copy in host memory, then a thread writes and hashes while steps go on.
- `blocking`: as version 0.1 did: DeepSpeed's own files of every rank and the whole average by the first one; then the first
  rank reads and hashes all files while the others wait.

Peaks are the largest resident set sizes of a rank during a step and during a checkpoint, less what it held before.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.ranks import spawn
from benchmarks.report import Row, circumstances, finish, options
from benchmarks.speed.steps import settings_for, small_set
from pidscale.config import Settings
from pidscale.dataset.problem import open_problem
from pidscale.diffusion.noise import EdmNoise
from pidscale.engine.sealer import Retention, Sealer
from pidscale.engine.shelf import FolderShelf
from pidscale.files import file_sha256
from pidscale.meter import StepTimer
from pidscale.parallel.mesh import Mesh
from pidscale.pde.parameters import condition, draw_params
from pidscale.teacher import training
from pidscale.teacher.training import Teacher

POINTS = 16
RANKS = 2
WAYS = ("beside", "blocking")


def _peak(act: Callable[[], None]) -> int:
    """Return the largest resident set size of this process while a function runs, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the largest size until now
    act()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _resident() -> int:
    """Return the resident set size of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _block(teacher: Teacher, folder: Path) -> None:
    """Write a checkpoint as version 0.1 did."""
    mesh = teacher.mesh
    folder.mkdir(parents=True, exist_ok=True)
    teacher.zero.engine.save_checkpoint(str(folder), "zero")
    average = teacher.ema.full_weights(mesh.first)
    if mesh.first:
        save_file({name: values.contiguous() for name, values in average.items()}, folder / "ema.safetensors")
    mesh.barrier()
    if mesh.first:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            file_sha256(path)
    mesh.barrier()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _measure(rank: int, world: int, settings: Settings, folder: Path, repeats: int) -> list[Row]:
    """The costs that this rank sees, for each way and repeat."""
    torch.set_num_threads(1)
    mesh = Mesh.over(rank, world, torch.device("cpu"), 1)
    problem = open_problem(settings.pde, settings.data)
    teacher = training.build(settings, problem, EdmNoise(), mesh)
    mine = mesh.slice(settings.teacher.global_batch)
    x = torch.randn(mine.stop - mine.start, *problem.shape)
    conditions = condition(problem.pde, draw_params(problem.pde, 0, "x", range(len(x))))
    sealer = Sealer.open(FolderShelf(folder / "beside"), mesh, settings.cluster.zero_stage, Retention(1))

    def step() -> None:
        teacher.gradients(0, x, conditions, StepTimer())
        teacher.zero.step(1e-4)
        teacher.ema.update(0)

    step()
    sealer.save(1, {}, teacher.slices())  # the first one allocates the host memory of all others
    sealer.wait()
    alone = time.perf_counter()
    stepping = _peak(step)
    alone = time.perf_counter() - alone
    rows = []
    for repeat in range(2, 2 + repeats):
        for way in WAYS:
            mesh.barrier()
            before = _resident()
            began = time.perf_counter()
            row: Row = {"way": way, "rank": rank, "step_seconds": alone}
            if way == "beside":

                def save(repeat: int = repeat, row: Row = row, began: float = began) -> None:
                    sealer.save(repeat, {}, teacher.slices())
                    row["waits"] = time.perf_counter() - began
                    step()
                    row["step_meanwhile"] = time.perf_counter() - began - row["waits"]
                    sealer.wait()

                row["peak"] = _peak(save)
            else:
                row["peak"] = _peak(lambda: _block(teacher, folder / "blocking"))
                row["waits"] = time.perf_counter() - began
            row |= {"sealed_after": time.perf_counter() - began, "held": before, "step_peak": stepping}
            mesh.barrier()
            row["bytes"] = _size(folder / way)
            mesh.barrier()
            if way == "blocking" and mesh.first:
                shutil.rmtree(folder / "blocking")
            rows.append(row)
    sealer.close()
    return rows


def _middle(rows: list[Row], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def measure(folder: Path, size: str, repeats: int) -> list[Row]:
    """Return a row for each way: medians over repeats of the slowest rank, and the largest peak of the other ranks."""
    shards = small_set(folder, "poisson", POINTS)
    settings = settings_for(shards, "poisson", POINTS, {"kind": "unet", "size": size}, RANKS)
    settings = replace(settings, cluster=replace(settings.cluster, zero_stage=3, workers=RANKS))
    found = [one for rank in spawn(_measure, RANKS, settings, folder, repeats, timeout=3000) for one in rank]
    rows: list[Row] = []
    for way in WAYS:
        own = [row for row in found if row["way"] == way]
        first, others = ([row for row in own if (row["rank"] == 0) == is_first] for is_first in (True, False))
        row = {"way": way, "size": size, "bytes": own[0]["bytes"], "step_seconds": _middle(first, "step_seconds")}
        row |= {key: _middle(first, key) for key in ("waits", "sealed_after")}
        row["waits_spread"] = max(r["waits"] for r in first) - min(r["waits"] for r in first)
        row["peak_of_others"] = max(r["peak"] for r in others)
        row["over_step_peak"] = max(r["peak"] / r["step_peak"] for r in others)
        if way == "beside":
            row["step_meanwhile"] = _middle(first, "step_meanwhile")
        rows.append(row)
    beside, blocking = rows
    for key in ("waits", "sealed_after", "bytes"):
        beside[f"{key}_ratio"] = beside[key] / blocking[key]
    return rows


def main() -> None:
    """Measure and write the rows."""
    parser = options(__doc__, "checkpoint")
    parser.add_argument("--size", default="large", help="size of the UNet, as in configs/model")
    parser.add_argument("--repeats", type=int, default=3, help="checkpoints of each way")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), arguments.size, arguments.repeats)
    finish(arguments.json, {"rows": rows, "meta": circumstances(ranks=RANKS, repeats=arguments.repeats)})


if __name__ == "__main__":
    main()
