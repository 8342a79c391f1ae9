"""The work of `pidscale compare`: train what is needed, measure cells as Ray tasks, and write table and page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pidscale.app import make_shards
from pidscale.app.compose import Comparison
from pidscale.app.output import Progress
from pidscale.cluster.fit import Stop
from pidscale.cluster.joining import connect
from pidscale.cluster.together import Job, run_together
from pidscale.compare.cells import Cell, Measured, known, measure, method_of, shown
from pidscale.compare.settings import LAMBDA0
from pidscale.compare.sheet import page_text, write_tables
from pidscale.compare.tables import table
from pidscale.compare.tasks import TUNED, kind_of
from pidscale.config import Settings, UserError, to_plain
from pidscale.dataset.problem import open_problem
from pidscale.dataset.tasks import cluster_cpus, run_in_ray
from pidscale.environment import processor
from pidscale.files import write_atomic
from pidscale.generator.artifact import CONTROL
from pidscale.meter import log_seconds
from pidscale.methods.base import STUDENT, TEACHER
from pidscale.paths import absolute, refuse_address, refuse_job_package
from pidscale.pde.base import Samples, shown_channels
from pidscale.pde.own import look_here
from pidscale.run.phases import due, hold_run, versions
from pidscale.run.places import made_by, run_folder

Run = tuple[str, int, str]  # equation, seed and network


@dataclass
class _Plan:
    """A comparison, the folder that all of it lies in, and the networks that could not be trained.

    Attributes:
        comparison: Settings.
        folder: Folder of the comparison.
        failed: The reason of each network that could not be trained.
    """

    comparison: Comparison
    folder: Path
    failed: dict[Run, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cells = list(self._cells())
        asked = {(cell.equation, cell.seed, _network(cell.row)) for cell in self.cells}
        asked |= {(equation, seed, "teacher") for equation, seed, _ in asked}  # who teaches the students
        compare = self.comparison.compare
        places = [(e, s, name) for s in compare.seeds for e in compare.equations for name in compare.networks]
        self.runs = [run for run in places if run in asked]

    def phase(self, network: str) -> str:
        """Return the phase that makes a network."""
        return "distill" if network in self.comparison.compare.students else "teacher"

    def settings(self, equation: str, seed: int, network: str) -> Settings:
        """Return the settings of a run, with its place, data and seed."""
        s = self.comparison.runs[equation, network]
        run = replace(s.run, folder=str(self.folder), name=f"{equation}-{seed}-{network}", seed=seed)
        data = replace(s.data, path=str(self.folder / "shards" / equation))
        teacher = str(self.folder / f"{equation}-{seed}-teacher" / "teacher")
        if self.phase(network) == "distill":
            return replace(s, data=data, run=run, distill=replace(s.distill, teacher=teacher))
        goes_on = s.teacher.needs.needs_start and s.teacher.start is None
        start = replace(s.teacher, start=teacher) if goes_on else s.teacher
        return replace(s, data=data, run=run, teacher=start)

    def _cells(self) -> Iterator[Cell]:
        """Yield every cell that its method can answer, in the order of the table."""
        compare = self.comparison.compare
        for name, row in compare.measured.items():
            self._check(name, row)
        for equation in compare.equations:
            for task in compare.tasks:
                for name, row in compare.measured.items():
                    if kind_of(task) in method_of(name, row).answers:
                        yield from (self._cell(equation, seed, name, row, task) for seed in compare.seeds)

    def _cell(self, equation: str, seed: int, name: str, row: dict[str, Any], task: str) -> Cell:
        compare = self.comparison.compare
        network = _network(row)
        settings = self.settings(equation, seed, network)
        made = made_by(self.phase(network), run_folder(settings))
        made = made.with_name(CONTROL) if row.get("network", "").endswith(LAMBDA0) else made
        heads = tuple(compare.heads)
        return Cell(equation, seed, name, row, task, settings, made, heads, compare.fields, self.folder / "cells")

    def _check(self, name: str, row: dict[str, Any]) -> None:
        """Raise UserError if a row asks a network that its method does not take, or a control that is not trained."""
        where = f"compare.rows.{name}"
        takes = method_of(name, row).takes
        network = _network(row)
        for equation in self.comparison.compare.equations:
            s = self.comparison.runs[equation, network]
            kind = STUDENT if self.phase(network) == "distill" else str(s.teacher.needs.kind)
            kinds = {kind, f"{kind}:{s.teacher.noise}"} if kind == TEACHER else {kind}
            if takes and not takes & kinds:
                wanted = " or ".join(sorted(takes))
                raise UserError(f"{where}.network={network}: {row['method']} takes {wanted}, not {max(kinds, key=len)}")
            if row.get("network", "").endswith(LAMBDA0) and not s.distill.control:
                raise UserError(
                    f"{where}.network={row['network']}: {network} is trained without a control (distill.control=false)"
                )


def carry_out(comparison: Comparison) -> int:
    """Train, measure and write what is missing.

    Args:
        comparison: Checked settings.

    Returns:
        The exit status: 0, or 2 if a cell failed.

    Raises:
        UserError: When a setting is wrong, another process is at work in the folder, or the user asked to stop.
    """
    log_seconds()  # a wrong value is an error here, and not hours later
    for settings in comparison.runs.values():
        look_here(settings.pde.name)
    common = absolute(comparison.common)
    refuse_address(common.run.folder, "run.folder", "a comparison lies in a folder that all hosts share")
    refuse_job_package(common.run.folder, "run.folder")
    plan = _Plan(comparison, run_folder(common))
    if not plan.cells:
        raise UserError(
            f"compare.tasks={comparison.compare.tasks}: none of the rows answers one of them; name other rows"
        )
    for equation in comparison.compare.equations:
        _check_sizes(plan, equation)
    with hold_run(common):
        for run in plan.runs:
            _check_made(plan, run)
        for equation in comparison.compare.equations:
            make_shards.run(plan.settings(equation, comparison.compare.seeds[0], "teacher"))
        progress = Progress("compare")
        _train(plan, progress)
        measured = _measure(plan, progress)
        progress.close()
        return _finish(plan, measured)


def _network(row: dict[str, Any]) -> str:
    """Return the network whose run a row needs."""
    return str(row.get("network", "teacher")).removesuffix(LAMBDA0)


def _check_sizes(plan: _Plan, equation: str) -> None:
    """Raise UserError if the shard set of an equation is too small for the table."""
    compare = plan.comparison.compare
    settings = plan.settings(equation, compare.seeds[0], "teacher")
    there = settings.data.test
    if there < 2 * settings.evaluate.samples:
        raise UserError(
            f"evaluate.samples={settings.evaluate.samples}: needs {2 * settings.evaluate.samples} held-out truths (the floor "
            f"compares two halves), data.test={there}; change one of them"
        )
    if compare.tasks != ["sample"] and there < TUNED + compare.fields:
        raise UserError(
            f"compare.fields={compare.fields}: needs {TUNED + compare.fields} held-out truths (the first {TUNED} "
            f"score nothing), data.test={there}; change one of them"
        )


def _check_made(plan: _Plan, run: Run) -> None:
    """Raise UserError if settings of a run are wrong, or are no longer those that it was begun with."""
    settings = plan.settings(*run)
    phase = plan.phase(run[2])
    _ = settings.teacher.own if phase == "teacher" else settings.distill.own
    path = run_folder(settings) / f"{phase}.json"
    if path.exists():
        settings = replace(settings, distill=settings.distill.complete) if phase == "distill" else settings
        signed = json.loads(path.read_text()).get("signature", {})
        due(phase, settings, {key: value for key, value in signed.items() if " (its " in key})


def _train(plan: _Plan, progress: Progress) -> None:
    """Run the phases that are not finished. One that fails once it was begun is kept with its reason, and others go on."""
    total = len(plan.runs) + len(plan.cells)
    jobs = [_job(plan, run) for run in plan.runs]
    failed = run_together(
        jobs, plan.comparison.compare.at_once, Stop(), lambda done, names: progress(done, total, names)
    )
    plan.failed |= {run: failed[job.name] for job, run in zip(jobs, plan.runs, strict=True) if job.name in failed}


def _job(plan: _Plan, run: Run) -> Job:
    """Return the job that makes a network."""
    equation, seed, network = run
    settings = plan.settings(*run)
    phase = plan.phase(network)
    taught = phase == "distill" or settings.teacher.needs.needs_start
    return Job(settings.run.name, phase, settings, f"{equation}-{seed}-teacher" if taught else "")


def _measure(plan: _Plan, progress: Progress) -> list[Measured]:
    """Measure the cells that are not known, and write the table after each; return all of them in order."""
    measured: dict[int, Measured] = {}
    waiting: dict[tuple[Any, ...], int] = {}
    for number, cell in enumerate(plan.cells):
        reason = plan.failed.get((cell.equation, cell.seed, _network(cell.row)), "")
        found = Measured(cell, failed=reason) if reason else known(cell)
        if found is None:
            waiting[_where(cell)] = number
        else:
            measured[number] = found
    meta = _meta(plan)
    total = len(plan.runs) + len(plan.cells)
    if waiting:
        connect()
        cells = [plan.cells[number] for number in waiting.values()]
        longest = 60 * plan.comparison.compare.longest
        for one in run_in_ray(measure, cells, cluster_cpus(), lost=_lost, longest=longest):
            measured[waiting[_where(one.cell)]] = one
            in_order = [measured[number] for number in sorted(measured)]
            write_tables(plan.folder, *_table(in_order), meta)
            bad = sum(bool(each.failed) for each in in_order)
            note = f"{bad} failed; {one.cell.equation} {one.cell.name} {one.cell.task}"
            progress(len(plan.runs) + len(measured), total, note)
    return [measured[number] for number in range(len(plan.cells))]


def _lost(cell: Cell, reason: str) -> Measured:
    """Return what stands in the table for a cell whose process was lost, for want of memory for instance."""
    return Measured(cell, failed=reason)


def _finish(plan: _Plan, measured: list[Measured]) -> int:
    """Write tables and page, print the rows of the samples, and return the exit status."""
    rows, failed = _table(measured)
    meta = _meta(plan)
    write_tables(plan.folder, rows, failed, meta)
    first = plan.comparison.compare.seeds[0]
    equations, pictures = {}, {}
    for equation in plan.comparison.compare.equations:
        settings = plan.settings(equation, first, "teacher")
        problem = open_problem(settings.pde, settings.data)
        equations[equation] = problem.pde, problem.grid
        pictures[equation] = _pictures(
            [one for one in measured if one.cell.equation == equation and one.cell.seed == first]
        )
        own = [row for row in rows if (row["equation"], row["seed"], row["task"]) == (equation, first, "sample")]
        channels = [problem.pde.channels[i].name for i in shown_channels(problem.pde)]
        if own:
            print(f"\n{equation}, seed {first}\n{table({'rows': own, 'meta': {'channels_shown': channels}})}")
    write_atomic(plan.folder / "index.html", page_text(rows, failed, meta, equations, pictures).encode())
    for one in failed:
        print(f"error: {one['equation']} {one['row']} {one['task']}, seed {one['seed']}: {one['failed']}")
    print(f"comparison: {plan.folder / 'index.html'}")
    return 2 if failed else 0


def _pictures(measured: Sequence[Measured]) -> dict[str, Samples]:
    """Return a few samples of each row of samples, without those of its finishes."""
    found: dict[str, Samples] = {}
    for one in measured:
        if one.cell.task == "sample" and not one.failed:
            found |= {name: samples for name, samples in shown(one.cell).items() if name == one.cell.name}
    return found


def _where(cell: Cell) -> tuple[Any, ...]:
    return cell.equation, cell.seed, cell.name, cell.task


def _table(measured: Sequence[Measured]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of the table, and the cells that failed."""
    rows = [row for one in measured for row in one.rows]
    names = ("equation", "seed", "row", "task")
    failed = [
        dict(zip(names, _where(one.cell), strict=True)) | {"failed": one.failed} for one in measured if one.failed
    ]
    return rows, failed


def _meta(plan: _Plan) -> dict[str, Any]:
    """Return what the table was made with."""
    compare = plan.comparison.compare
    trained = {(equation, network): plan.comparison.runs[equation, network] for equation, _, network in plan.runs}
    return {
        "versions": versions(),
        "machine": processor(),
        "compare": to_plain(compare) | {"rows": compare.measured},
        "settings": {
            equation: {network: to_plain(s) for (own, network), s in trained.items() if own == equation}
            for equation in compare.equations
        },
    }
