"""The work of `pidscale compare`: train what is needed, measure cells as Ray tasks, and write table and page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pidscale.app import make_shards
from pidscale.app.compose import Comparison
from pidscale.app.output import Progress
from pidscale.cluster.fit import Stop
from pidscale.cluster.joining import connect
from pidscale.cluster.phase import run_phase
from pidscale.compare.cells import Cell, Measured, known, measure, method_of
from pidscale.compare.settings import LAMBDA0
from pidscale.compare.sheet import load_shown, write_page, write_tables
from pidscale.compare.tables import table
from pidscale.compare.tasks import TUNED, kind_of
from pidscale.config import Settings, UserError, to_plain
from pidscale.dataset.problem import open_problem
from pidscale.dataset.tasks import cluster_cpus, run_in_ray
from pidscale.environment import processor
from pidscale.generator.artifact import CONTROL
from pidscale.limits import check
from pidscale.meter import log_seconds
from pidscale.paths import absolute, refuse_address, refuse_job_package
from pidscale.pde.base import Samples, shown_channels
from pidscale.pde.own import look_here
from pidscale.run.phases import versions
from pidscale.run.places import made_by, run_folder


@dataclass
class _Plan:
    """A comparison, the folder that all of it lies in, and the networks that could not be trained.

    Attributes:
        comparison: Settings.
        folder: Folder of the comparison.
        failed: The reason of each network that could not be trained, by equation, seed and name.
    """

    comparison: Comparison
    folder: Path
    failed: dict[tuple[str, int, str], str] = field(default_factory=dict)

    def settings(self, equation: str, seed: int, network: str) -> Settings:
        """Return the settings of a run, with its place, data and seed."""
        s = self.comparison.runs[equation, network]
        where = {"folder": str(self.folder), "name": f"{equation}-{seed}-{network}", "seed": seed}
        teacher = str(self.folder / f"{equation}-{seed}-teacher" / "teacher")
        return replace(
            s,
            data=replace(s.data, path=str(self.folder / "shards" / equation)),
            run=replace(s.run, **where),  # type: ignore[arg-type]
            distill=replace(s.distill, teacher=teacher) if self.is_student(network) else s.distill,
        )

    def is_student(self, network: str) -> bool:
        """Return whether a network is a student."""
        return network in self.comparison.compare.students

    def runs(self) -> Iterator[tuple[str, int, str]]:
        """Yield equation, seed and network of every run, teachers before their students."""
        compare = self.comparison.compare
        for seed in compare.seeds:
            for equation in compare.equations:
                for network in compare.needed:
                    yield equation, seed, network

    def cells(self) -> Iterator[Cell]:
        """Yield every cell that its method can answer, in the order of the table."""
        compare = self.comparison.compare
        for equation in compare.equations:
            for task in compare.tasks:
                for name, row in compare.measured.items():
                    if kind_of(task) not in method_of(name, row).answers:
                        continue
                    asked = row.get("network", "teacher")
                    network = asked.removesuffix(LAMBDA0)
                    for seed in compare.seeds:
                        settings = self.settings(equation, seed, network)
                        made = made_by("distill" if self.is_student(network) else "teacher", run_folder(settings))
                        made = made.with_name(CONTROL) if asked.endswith(LAMBDA0) else made
                        yield Cell(
                            equation, seed, name, row, task, settings, made, tuple(compare.heads), compare.fields
                        )

    def reason(self, cell: Cell) -> str:
        """Return why the network of a cell could not be trained; empty if it could."""
        network = cell.row.get("network", "teacher").removesuffix(LAMBDA0)
        return self.failed.get((cell.equation, cell.seed, network), "")


def carry_out(comparison: Comparison) -> int:
    """Train, measure and write what is missing.

    Args:
        comparison: Checked settings.

    Returns:
        The exit status: 0, or 2 if a cell failed.
    """
    log_seconds()  # a wrong value is an error here, and not hours later
    for settings in comparison.runs.values():
        look_here(settings.pde.name)
    common = absolute(comparison.common)
    refuse_address(common.run.folder, "run.folder", "a comparison lies in a folder that all hosts share")
    refuse_job_package(common.run.folder, "run.folder")
    plan = _Plan(comparison, run_folder(common))
    cells = list(plan.cells())  # with a mistake in a row, an error before anything is made
    runs = list(plan.runs())
    progress = Progress("compare")
    total = len(runs) + len(cells)
    for equation in comparison.compare.equations:
        _make(plan, equation)
    _train(plan, runs, lambda done, note: progress(done, total, note))
    folder = plan.folder / "cells"
    measured: dict[tuple[Any, ...], Measured] = {}

    def take(one: Measured) -> None:
        measured[_where(one.cell)] = one
        in_order = [measured[_where(cell)] for cell in cells if _where(cell) in measured]
        write_tables(plan.folder, *_table(in_order), _meta(plan))
        left = (
            f"{sum(bool(each.failed) for each in in_order)} failed; {one.cell.equation} {one.cell.name} {one.cell.task}"
        )
        progress(len(runs) + len(measured), total, left)

    waiting = []
    for cell in cells:
        found = Measured(cell, failed=plan.reason(cell)) if plan.reason(cell) else known(cell, folder)
        if found is None:
            waiting.append(cell)
        else:
            measured[_where(cell)] = found
    if waiting:
        connect()
        for one in run_in_ray(partial(measure, folder=folder), waiting, cluster_cpus()):
            take(one)
    progress.close()
    return _finish(plan, [measured[_where(cell)] for cell in cells])


def _make(plan: _Plan, equation: str) -> None:
    """Make the shard set of an equation, and check that it is large enough for the table."""
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
    make_shards.run(settings)


def _train(plan: _Plan, runs: list[tuple[str, int, str]], progress: Callable[[int, str], None]) -> None:
    """Run the phases that are not finished. One that fails is kept with its reason, and others go on."""
    stop = Stop()
    for done, (equation, seed, network) in enumerate(runs):
        progress(done, f"{equation} {network}, seed {seed}")
        settings = plan.settings(equation, seed, network)
        phase = "distill" if plan.is_student(network) else "teacher"
        try:
            check(settings, (phase,))
            run_phase(phase, settings, stop)
        except UserError as error:
            if stop.asked:
                raise
            plan.failed[equation, seed, network] = str(error)
            print(f"error: {equation}, seed {seed}: {network} could not be trained: {error}", flush=True)


def _finish(plan: _Plan, measured: list[Measured]) -> int:
    """Write tables and page, print the rows of the samples, and return the exit status."""
    rows, failed = _table(measured)
    meta = _meta(plan)
    write_tables(plan.folder, rows, failed, meta)
    first = plan.comparison.compare.seeds[0]
    problems, shown = {}, {}
    for equation in plan.comparison.compare.equations:
        settings = plan.settings(equation, first, "teacher")
        problems[equation] = problem = open_problem(settings.pde, settings.data)
        shown[equation] = _shown(
            [one for one in measured if one.cell.equation == equation and one.cell.seed == first], plan
        )
        own = [row for row in rows if (row["equation"], row["seed"], row["task"]) == (equation, first, "sample")]
        channels = [problem.pde.channels[i].name for i in shown_channels(problem.pde)]
        if own:
            print(f"\n{equation}, seed {first}\n{table({'rows': own, 'meta': {'channels_shown': channels}})}")
    write_page(plan.folder, rows, failed, meta, problems, shown)
    for one in failed:
        print(f"error: {one['equation']} {one['row']} {one['task']}, seed {one['seed']}: {one['failed']}")
    print(f"comparison: {plan.folder / 'index.html'}")
    return 2 if failed else 0


def _shown(measured: list[Measured], plan: _Plan) -> dict[str, Samples]:
    """Return a few samples of each row, by method, as each cell has them first."""
    found: dict[str, Samples] = {}
    for one in measured:
        if one.cell.task == "sample" and not one.failed:
            path = one.cell.path(plan.folder / "cells", one.cell.request()).with_suffix(".npz")
            found |= {name: samples for name, samples in load_shown(path).items() if name == one.cell.name}
    return found


def _where(cell: Cell) -> tuple[Any, ...]:
    return cell.equation, cell.seed, cell.name, cell.task


def _table(measured: list[Measured]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of the table, and the cells that failed."""
    rows = [row for one in measured for row in one.rows]
    names = ("equation", "seed", "row", "task")
    failed = [
        dict(zip(names, _where(one.cell), strict=True)) | {"failed": one.failed} for one in measured if one.failed
    ]
    return rows, failed


def _meta(plan: _Plan) -> dict[str, Any]:
    """Return what the rows were measured with."""
    compare = plan.comparison.compare
    return {
        "versions": versions(),
        "machine": processor(),
        "seeds": compare.seeds,
        "rows": compare.measured,
        "networks": {
            name: words for name, words in (compare.teachers | compare.students).items() if name in compare.needed
        },
        "settings": to_plain(plan.comparison.common),
    }
