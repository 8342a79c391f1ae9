"""Forward, inverse and reconstruction on held-out fields: the student, direct search of the field, and the mean field.

python -m benchmarks.studies.tasks [--pde darcy poisson burgers] [--seed 0 1 2] [--count 16] [--folder runs]
    [--json benchmarks/results/tasks.json]

The students are those of the demo (Darcy) and of benchmarks.studies.zoo (Poisson, Burgers), which are trained where they are
missing; `control` is that without the residual, and `+head-K` searches through K solver steps. `+field` goes on over the
field itself, `start` begins at the guess of a start network, which is learnt where it is missing, and `solver` are solver
steps without a network. Fields are those of the test split after its first TUNED, on which settings were chosen.
pidscale/compare/tasks.py says what a task knows. Errors are relative L2 distances to the truth over the values that are not
known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.report import Row, circumstances, finish, merged, options, processor, save
from benchmarks.studies import demo, zoo
from benchmarks.studies.heads import PDES
from benchmarks.studies.measure import TUNED, answer_row, observation, open_run
from pidscale.dataset.problem import Problem
from pidscale.generator.load import load_student
from pidscale.generator.scales import residual_scales
from pidscale.generator.student import FIELD_STEPS, STARTED_STEPS, Student
from pidscale.generator.tasks.learn_start import learn_start
from pidscale.generator.tasks.likeliest import Answer, solve_task
from pidscale.generator.tasks.observations import Observation
from pidscale.generator.tasks.posterior import coverage, crps, posterior
from pidscale.generator.tasks.search import Search
from pidscale.generator.tasks.solver import solve_inputs
from pidscale.generator.tasks.start import StartNetwork, write_start
from pidscale.methods.direct import direct, mean_field
from pidscale.methods.search import answer_samples
from pidscale.pde.base import Samples

STEPS = 150  # evaluations of a student for each of its starts
STARTS = 2
DRAWS = 32
DRAWN = 4  # of the fields have posterior samples, which cost most
HEAD = 4  # solver steps of the rows `+head-4`
FIELD = FIELD_STEPS  # evaluations of the rows `+field`, over the field itself
DIRECT = STEPS * STARTS  # evaluations of a field, which are far cheaper than those of a student
TASKS = ("forward", "inverse", "reconstruct", "noisy", "columns")
Params = dict[str, Tensor] | None


@dataclass(frozen=True)
class Subject:
    """A student, the truths that it is asked about, and what other methods are given in its place."""

    problem: Problem
    student: Student
    control: Student
    truth: Samples
    mean_CYX: Tensor  # of the training set
    scales: dict[str, float]  # of the residual's terms, by the student's own samples

    @property
    def params(self) -> Params:
        """The parameters of the truths by name."""
        return dict(zip(self.problem.pde.varying, self.truth.params.T, strict=True)) or None

    def methods(self, seen: Observation) -> dict[str, Callable[[], Answer]]:
        """Return the ways to answer a task."""
        plain = (self.problem.pde, self.problem.grid, self.problem.normaliser, seen)
        searched = {
            "student": self.student.with_head(0),
            f"student+head-{HEAD}": self.student.with_head(HEAD),
            "control": self.control.with_head(0),
            f"control+head-{HEAD}": self.control.with_head(HEAD),
        }
        ways: dict[str, Callable[[], Answer]] = {
            name: partial(solve_task, one, seen, self.params, Search(STEPS, STARTS)) for name, one in searched.items()
        }
        ways["student+field"] = self._searched(seen, Search(STEPS, STARTS, field_steps=FIELD))
        ways["start"] = self._searched(seen, Search(STARTED_STEPS, 1), self.student.start)
        ways["start+field"] = self._searched(seen, Search(STARTED_STEPS, 1, field_steps=FIELD), self.student.start)
        ways["direct"] = partial(direct, *plain, self.scales, self.params, Search(DIRECT), self.mean_CYX)
        ways["mean field"] = partial(mean_field, *plain, self.params, self.mean_CYX)
        return ways

    def _searched(self, seen: Observation, search: Search, start: StartNetwork | None = None) -> Callable[[], Answer]:
        """Return a search of the student's own fields."""

        def solve() -> Answer:
            first = None if start is None else start.vectors(self.student, seen, self.params)
            return solve_task(self.student, seen, self.params, search, first=first)

        return solve

    def solved(self, seen: Observation) -> Answer:
        """Return the answers of solver steps to forward problems."""
        found = solve_inputs(self.student.with_head(HEAD), seen, self.params, batch=64)
        assert found is not None
        return found

    def answers(self, task: str) -> Iterator[Row]:
        """Yield the row of each method."""
        seen = observation(self.student, self.truth, task)
        count = len(self.truth.fields)
        solver = {"solver": partial(self.solved, seen)} if task == "forward" else {}
        for name, solve in (self.methods(seen) | solver).items():
            began = time.perf_counter()
            answer = solve()
            ms = (time.perf_counter() - began) / count * 1e3
            found = answer_samples(self.student, answer)
            yield {"method": name, "ms": ms, "n": count} | answer_row(self.student, found, self.truth, seen.known_NCYX)

    def posterior(self, task: str, start: StartNetwork | None = None) -> Row:
        """Return the row of posterior samples of the first fields, which may begin at draws of a start network.

        It holds the coverage of the 90 % interval, the CRPS in the channel's unit, and the error of the mean, by channel.
        """
        truth = self.truth.first(DRAWN)
        params = {name: values[:DRAWN] for name, values in self.params.items()} if self.params else None
        seen = observation(self.student, truth, task)
        began = time.perf_counter()
        steps = STEPS if start is None else STARTED_STEPS
        draws = posterior(self.student, seen, DRAWS, params, Search(steps, physics=0.0), start)
        ms = (time.perf_counter() - began) / len(seen) * 1e3
        row: Row = {
            "method": "posterior" if start is None else "posterior of start",
            "n": len(truth.fields),
            "ms": ms,
            "draws": DRAWS,
        }
        for c, name in enumerate(self.student.channels):
            of = partial(_hidden, known_NYX=seen.known_NCYX[:, c])
            samples = of(draws.samples[name])
            true = of(truth.fields[:, c])
            mean = of(draws.mean[name])
            row |= {f"coverage_{name}": coverage(samples, true), f"crps_{name}": crps(samples, true)}
            row[f"error_{name}"] = float(((mean - true).norm(dim=1) / true.norm(dim=1)).mean())
        return row


def _hidden(values: Tensor, known_NYX: Tensor) -> Tensor:
    """Of values [N, ..., Y, X] those that are not known, [N, ..., P]: as many of each field."""
    return torch.stack([one.flatten(-2)[..., ~known.flatten()] for one, known in zip(values, known_NYX, strict=True)])


def open_subject(run: Path, count: int) -> Subject:
    """Open the student of a run, and read the truths that it is asked about."""
    _, problem = open_run(run)
    held_out = problem.samples("test", TUNED + count)
    truth = Samples(held_out.fields[TUNED:], held_out.params[TUNED:])
    mean = problem.samples("train", 4096).fields.mean(dim=0)
    student = load_student(run / "student").with_head(0)
    if student.start is None:
        write_start(run / "student", learn_start(student))
        student = load_student(run / "student").with_head(0)
    control = load_student(run / "student-lambda0")
    return Subject(problem, student, control, truth, mean, residual_scales(student))


def train(pde: str, seed: int, folder: Path) -> Path:
    """Run what is missing, and return the folder of the run of an equation and seed."""
    return demo.train(seed, folder) if pde == "darcy" else zoo.train(pde, folder / "zoo", seed)


def measure(pde: str, seed: int, count: int, folder: Path) -> Iterator[Row]:
    """Yield one row for each task and method."""
    subject = open_subject(train(pde, seed, folder), count)
    where = {"first": TUNED, "machine": processor()}
    for task in TASKS:
        rows = list(subject.answers(task))
        if task == "noisy":
            rows += [subject.posterior(task), subject.posterior(task, subject.student.start)]
        for row in rows:
            shown = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
            print(pde, task, shown, flush=True)
            yield {"pde": pde, "seed": seed, "task": task} | row | where


def main() -> None:
    """Train what is missing, solve and write the rows."""
    parser = options(__doc__, "tasks")
    parser.add_argument("--pde", nargs="+", choices=PDES, default=list(PDES))
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    torch.set_num_threads(1)
    for seed, pde in product(arguments.seed, arguments.pde):
        rows = merged(arguments.json, list(measure(pde, seed, arguments.count, folder)), ("pde", "seed"))
        result = {"rows": rows, "meta": circumstances()}
        save(arguments.json, result)
    finish(arguments.json, result, "tasks")


if __name__ == "__main__":
    main()
