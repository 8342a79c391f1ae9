"""All measures of a run on one truth set that no training saw. Writes report/metrics.json and report/index.html."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pidscale import metrics
from pidscale.compare import contender
from pidscale.compare.contender import Made
from pidscale.compare.report import write_report
from pidscale.config import Settings, UserError
from pidscale.dataset.problem import Problem, open_problem
from pidscale.generator import artifact
from pidscale.generator.load import Generator, check_fits, load_student
from pidscale.parallel.mesh import Mesh
from pidscale.pde.base import Samples, shown_channels, solution_mask
from pidscale.plain import finite, json_text
from pidscale.records.layout import write_atomic
from pidscale.run.bad_samples import settled
from pidscale.run.phases import run_folder, teacher_folder, versions

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Reference:
    """What all rows are held against: truths, the training set they are not in, distances of truth to truth."""

    problem: Problem
    truth: Samples
    x_truth_NCYX: Tensor
    training_NCYX: Tensor
    swd_floor: float
    residual_floor: dict[str, float]
    residual_trivial: dict[str, float]
    seeds: list[int]


def reference(settings: Settings, problem: Problem) -> Reference:
    """Read the held-out truths and measure the floors. Raises UserError where the test split is too small."""
    n = settings.evaluate.samples
    pool = problem.samples("test", 2 * n)
    if len(pool.fields) < 2 * n:
        raise UserError(
            f"evaluate.samples={n} needs {2 * n} held-out truths (two halves for the floor), {settings.data.path} has "
            f"{len(pool.fields)}; lower evaluate.samples, or make the set with data.test={2 * n}"
        )
    training, truth, encode = problem.samples("train", 4096), pool.first(n), problem.normaliser.encode
    return Reference(
        problem,
        truth,
        encode(truth.fields),
        encode(training.fields),
        metrics.sliced_floor(encode(pool.fields).flatten(1)),
        metrics.residual_rms(problem.pde, problem.grid, *truth),
        metrics.residual_rms(problem.pde, problem.grid, problem.pde.trivial(truth.fields), truth.params),
        [settings.run.seed, settings.evaluate.seed],
    )


def row(made: Made, against: Reference, solved: Tensor) -> dict[str, Any]:
    """One row of the report. solved: the method's own inputs with their numerical solutions."""
    problem = against.problem
    pde, grid, fields = problem.pde, problem.grid, made.samples.fields
    residual = metrics.residual_rms(pde, grid, *made.samples)
    phase, mask = pde.phase_error(fields), solution_mask(pde, grid)
    x = problem.normaliser.encode(fields)
    return {
        "method": made.name,
        "nfe": made.nfe,
        "residual_l2": residual["l2"],
        "residual_dual": residual["dual"],
        "boundary_rms": residual["boundary"],
        "residual_floor": against.residual_floor["l2"],
        "residual_floor_dual": against.residual_floor["dual"],
        "residual_trivial": against.residual_trivial["l2"],
        "residual_trivial_dual": against.residual_trivial["dual"],
        "solution_error": metrics.solution_error(fields[:, mask], solved[:, mask]),
        "phase_error": None if phase is None else float(phase.mean()),
        **metrics.distribution_row(x, against.x_truth_NCYX, [against.swd_floor], [c.name for c in pde.channels]),
        "nearest_training": float(metrics.nearest(x, against.training_NCYX).median()),
        "ms_per_sample": made.ms_per_sample,
        "train_seconds": made.train_seconds,
        "n_samples": len(fields),
        "seeds": against.seeds,
    }


def evaluate(settings: Settings, progress: Progress = lambda done, total, note: None) -> dict[str, Any]:
    """Measure every method that the run's folder holds; returns what report/metrics.json holds (`rows`, `meta`)."""
    folder, e = run_folder(settings), settings.evaluate
    taught = teacher_folder(settings, folder)
    for path, script, other in (
        (taught, "train_teacher", "set distill.teacher to that of this run's students"),
        (folder / "student", "distill", "name another run"),
    ):
        if not path.exists():
            raise UserError(f"{path}: nothing to measure there; run launch/{script}.py first, or {other}")
    problem = settled(open_problem(settings.pde, settings.data), folder, Mesh(), print)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = load_student(taught, device)
    checked = taught if e.calls or settings.distill.teacher else None  # with it, a student says whether it is its own
    students = {
        name: load_student(folder / name, device, checked if name == "student" else None)
        for name in (artifact.CONTROL, "student")
        if name == "student" or (folder / name / artifact.CARD).exists()
    }
    for name, generator in {"teacher": teacher, **students}.items():
        remedy = "give the settings that this run was made with, or another run.name"
        check_fits(generator, taught if name == "teacher" else folder / name, problem.pde, problem.grid, remedy)
    against = reference(settings, problem)
    eps, params = (draw(range(e.samples), e.seed, "evaluate") for draw in (teacher.eps, teacher.params))
    made: dict[str, Made] = {}
    rows: list[dict[str, Any]] = []
    raised: dict[str, int] = {}
    total = 5 + len(e.teacher_steps) + len(students) + len(e.calls) + (e.refine > 0)
    for one in _methods(settings, problem, against, teacher, students, eps, params):
        progress(len(made), total, one.name)
        made[one.name] = one
        began = time.perf_counter()
        if one.name in ("truth", "trivial", "shuffled"):
            solved = against.truth.fields
        elif not one.name.endswith("+smooth3"):  # smoothing leaves the inputs, and so their solutions, as they are
            solved, raised[one.name] = contender.solutions(problem.pde, problem.grid, one.samples)
        if one.name == "student":
            cost = (time.perf_counter() - began) / e.samples * 1e3
            rows.append(row(contender.solved(one, solved, cost), against, solved))
        rows.append(row(one, against, solved))
    progress(total, total, "")
    meta: dict[str, Any] = {"versions": versions(), "device": str(device), "threads": torch.get_num_threads()}
    meta["channels_shown"] = [problem.pde.channels[i].name for i in shown_channels(problem.pde)]
    result = {"rows": rows, "meta": meta | {"input_points_raised": raised, "settings": folder.name}}
    report = folder / "report"
    report.mkdir(parents=True, exist_ok=True)
    _keep_other(report, e.samples)
    write_atomic(report / "metrics.json", json_text(result, indent=1).encode())
    write_report(report / "index.html", result, problem, {n: m.samples for n, m in made.items()}, against.truth)
    for name in ("teacher", *students):
        if name == "teacher" and taught != folder / name:
            continue  # another run's card is not this one's to write
        wanted = f"teacher-heun-{max(e.teacher_steps)}" if name == "teacher" else name
        card = artifact.read_card(folder / name)
        measured = next(r for r in rows if r["method"] == wanted)
        artifact.update_metrics(folder / name, {**card["metrics"], "report": finite(measured)})
    return result


def _keep_other(report: Path, samples: int) -> None:
    """Put a report of another number of samples aside, under that number."""
    path = report / "metrics.json"
    try:
        had = json.loads(path.read_text())["rows"][0]["n_samples"]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return
    if had != samples:
        for one in (path, report / "index.html"):
            if one.exists():
                one.rename(one.with_stem(f"{one.stem}-{had}"))


def _methods(
    settings: Settings,
    problem: Problem,
    against: Reference,
    teacher: Generator,
    students: dict[str, Generator],
    eps: Tensor,
    params: Tensor,
) -> Iterator[Made]:
    """Every method, in the order of the report."""
    pde, grid, e, batch = problem.pde, problem.grid, settings.evaluate, settings.evaluate.batch
    yield from contender.references(pde, grid, against.truth)
    for steps in sorted(e.teacher_steps):
        best = contender.generate(f"teacher-heun-{steps}", teacher, eps, params, batch, steps)
        yield best
    yield contender.smoothed(best, "teacher+smooth3", pde, grid)
    for name, student in students.items():
        one = contender.generate(name, student, eps, params, batch)
        yield one
        if name == artifact.CONTROL:
            yield contender.smoothed(one, f"{artifact.CONTROL}+smooth3", pde, grid)
    for nfe in sorted(e.calls):
        yield contender.generate_more(f"student-{nfe}", student, eps, params, batch, nfe)
    if e.refine > 0:
        yield contender.refined("student-refined", student, e.samples, e.seed, batch, e.refine)


def table(result: dict[str, Any]) -> str:
    """The rows as a plain text table."""
    columns = ["method", "nfe", "residual_l2", "residual_dual", "boundary_rms", "solution_error", "swd_excess"]
    columns += ["phase_error", "ms_per_sample"]
    channels = result["meta"]["channels_shown"]
    head = ["method", "NFE", "l2", "dual", "boundary", "solution err", "swd excess", "phase err", "ms/sample"]
    lines = [[*head, *(f"var {c[:12]}" for c in channels)]]
    for r in result["rows"]:
        values = [r[c] for c in columns] + [r["variance_ratio"][c] for c in channels]
        lines.append(["-" if v is None else f"{v:.3g}" if isinstance(v, float) else str(v) for v in values])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def report_path(settings: Settings) -> Path:
    """Where the report is."""
    return run_folder(settings) / "report" / "index.html"
