"""Forward, inverse and reconstruction on held-out fields: the student, direct search of the field, and the mean field.

python -m benchmarks.studies.tasks [--pde darcy poisson burgers] [--seed 0 1 2] [--count 16] [--folder runs]
    [--only METHOD ...] [--json benchmarks/results/tasks.json]

The students are those of the demo (Darcy) and of benchmarks.studies.zoo (Poisson, Burgers), which are trained where they are
missing; `control` is that without the residual, and `+head-K` searches through K solver steps. `+field` goes on over the
field itself, `start` begins at the guess of a start network, which is learnt where it is missing, and `solver` are solver
steps without a network. `--only` leaves the rows of other methods in the file as they are. Fields are those of the test
split after its first TUNED, on which settings were chosen. pidscale/compare/tasks.py says what a task knows. Errors are
relative L2 distances to the truth over the values that are not known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
METHODS = (
    "student",
    "student+field",
    f"student+head-{HEAD}",
    f"student+head-{HEAD}+field",
    "control",
    f"control+head-{HEAD}",
    "start",
    "start+field",
    "direct",
    "mean field",
    "solver",
    "posterior",
    "posterior of start",
)
Params = dict[str, Tensor] | None


class Clock:
    """Says when the first of two searches had its last evaluation."""

    def __init__(self) -> None:
        self.began = self.first = time.perf_counter()

    def __call__(self, done: int, total: int, note: str) -> None:
        if not note.startswith("over the field"):
            self.first = time.perf_counter()


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

    def searches(self, seen: Observation) -> dict[str, tuple[Search, Callable[[Search], Answer]]]:
        """Return the searches over the noise, each with its settings. All but those of the control go on over the field."""
        own, through = self.student.with_head(0), self.student.with_head(HEAD)

        def ask(one: Student, search: Search) -> Answer:
            return solve_task(one, seen, self.params, search)

        def begin(search: Search) -> Answer:
            assert own.start is not None
            return solve_task(own, seen, self.params, search, first=own.start.vectors(own, seen, self.params))

        both = Search(STEPS, STARTS, field_steps=FIELD)
        return {
            "student": (both, partial(ask, own)),
            f"student+head-{HEAD}": (both, partial(ask, through)),
            "control": (Search(STEPS, STARTS), partial(ask, self.control.with_head(0))),
            f"control+head-{HEAD}": (Search(STEPS, STARTS), partial(ask, self.control.with_head(HEAD))),
            "start": (Search(STARTED_STEPS, 1, field_steps=FIELD), begin),
        }

    def others(self, seen: Observation, task: str) -> dict[str, Callable[[], Answer]]:
        """Return the ways that search no noise."""
        plain = (self.problem.pde, self.problem.grid, self.problem.normaliser, seen)
        ways: dict[str, Callable[[], Answer]] = {
            "direct": partial(direct, *plain, self.scales, self.params, Search(DIRECT), self.mean_CYX),
            "mean field": partial(mean_field, *plain, self.params, self.mean_CYX),
        }
        return ways | ({"solver": partial(self.solved, seen)} if task == "forward" else {})

    def solved(self, seen: Observation) -> Answer:
        """Return the answers of solver steps to forward problems."""
        found = solve_inputs(self.student.with_head(HEAD), seen, self.params, batch=64)
        assert found is not None
        return found

    def answers(self, task: str, only: frozenset[str]) -> Iterator[Row]:
        """Yield the row of each of these methods; two for a search that goes on over the field."""
        seen = observation(self.student, self.truth, task)
        count = len(self.truth.fields)

        def row(name: str, answer: Answer, seconds: float) -> Row:
            measured = answer_row(self.student, answer_samples(self.student, answer), self.truth, seen.known_NCYX)
            return {"method": name, "ms": seconds / count * 1e3, "n": count} | measured

        for name, (search, solve) in self.searches(seen).items():
            if only.isdisjoint({name, f"{name}+field"}):
                continue
            clock = Clock()
            answer = solve(replace(search, progress=clock))
            ended = time.perf_counter()
            yield row(name, answer.first or answer, clock.first - clock.began)
            if answer.first is not None:
                yield row(f"{name}+field", answer, ended - clock.began)
        for name, way in self.others(seen, task).items():
            if name in only:
                began = time.perf_counter()
                answer = way()
                yield row(name, answer, time.perf_counter() - began)

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


def open_subject(run: Path, count: int, start: bool) -> Subject:
    """Open the student of a run, with a start network if one is asked for, and read the truths that it is asked about."""
    _, problem = open_run(run)
    held_out = problem.samples("test", TUNED + count)
    truth = Samples(held_out.fields[TUNED:], held_out.params[TUNED:])
    mean = problem.samples("train", 4096).fields.mean(dim=0)
    student = load_student(run / "student").with_head(0)
    if start and student.start is None:
        write_start(run / "student", learn_start(student))
        student = load_student(run / "student").with_head(0)
    control = load_student(run / "student-lambda0")
    return Subject(problem, student, control, truth, mean, residual_scales(student))


def train(pde: str, seed: int, folder: Path) -> Path:
    """Run what is missing, and return the folder of the run of an equation and seed."""
    return demo.train(seed, folder) if pde == "darcy" else zoo.train(pde, folder / "zoo", seed)


def measure(pde: str, seed: int, count: int, folder: Path, only: frozenset[str]) -> Iterator[Row]:
    """Yield one row for each task and each of these methods."""
    subject = open_subject(train(pde, seed, folder), count, any("start" in name for name in only))
    where = {"first": TUNED, "machine": processor()}
    for task in TASKS:
        rows = list(subject.answers(task, only))
        if task == "noisy":
            starts = {"posterior": None, "posterior of start": subject.student.start}
            rows += [subject.posterior(task, start) for name, start in starts.items() if name in only]
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
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    torch.set_num_threads(1)
    for seed, pde in product(arguments.seed, arguments.pde):
        found = list(measure(pde, seed, arguments.count, folder, frozenset(arguments.only)))
        rows = merged(arguments.json, found, ("pde", "seed", "task", "method"))
        result = {"rows": rows, "meta": circumstances()}
        save(arguments.json, result)
    finish(arguments.json, result, "tasks")


if __name__ == "__main__":
    main()
