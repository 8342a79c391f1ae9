"""`pidscale solve`: find fields that agree with known values. Needs the base installation only. Knows no ranks."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pidscale.app.files import Known, check_target, read_known, write_answer
from pidscale.app.opening import open_generator
from pidscale.app.output import Progress, residual_text
from pidscale.app.parser import SEARCH, named_numbers
from pidscale.config import UserError
from pidscale.figures.answer import answer_figure, layers
from pidscale.figures.png import figure_class, write_png
from pidscale.generator.arguments import as_int
from pidscale.generator.generator import Teacher
from pidscale.generator.student import FIELD_STEPS, Student
from pidscale.generator.tasks.likeliest import Answer, Stage, solve_task
from pidscale.generator.tasks.observations import Observation, observe, warnings_for
from pidscale.generator.tasks.posterior import Posterior, posterior
from pidscale.generator.tasks.readings import points
from pidscale.generator.tasks.search import MOST, Search
from pidscale.generator.tasks.solver import solve_inputs

FAR = 3.0  # distance from the known values, in sigma, above which a warning is printed
_SHOWN = 8  # number of fields that are described in a line each


def run(asked: argparse.Namespace) -> None:
    """Read the known values, search, write the answer, and print its misfit and residual.

    Args:
        asked: Parsed arguments.

    Raises:
        UserError: When an argument or a file is wrong; checked before any computation if possible.
    """
    for option, path, ending in (("--out", asked.out, ".npz"), ("--picture", asked.picture, ".png")):
        if path is not None:
            check_target(option, path, ending, asked.input)
    if asked.picture is not None:
        figure_class(asked.picture)
    student = open_generator(asked)
    if isinstance(student, Teacher):
        raise UserError(f"{asked.student}: a teacher cannot solve tasks; name the student distilled from it")
    known = read_known(student, asked.input)
    observation = _observed(student, asked, known)
    for line in warnings_for(student, observation):
        print(line)
    params = known.params | named_numbers("--param", asked.param, "diffusivity=0.002")
    answer = _search(asked, student, observation, params)
    write_answer(asked.out, student.pde.name, answer)
    if isinstance(answer, Answer) and answer.stage is Stage.SOLVER:
        print("solved by steps of the equation's own solver, without a network call (--no-solver searches)")
    print("\n".join(_summary(answer)))
    if line := student.refused(answer.fields if isinstance(answer, Answer) else answer.samples):
        print(f"warning: {line}")
    print(f"answer: {asked.out}")
    if asked.picture is not None:
        write_png(asked.picture, answer_figure(layers(student, observation, answer), student.grid))
        print(f"picture: {asked.picture}")


def _observed(student: Student, asked: argparse.Namespace, known: Known) -> Observation:
    """Return what a file knows, with sensors at coordinates as readings between grid points."""
    if known.places and asked.task != "reconstruct":
        raise UserError(
            f"{asked.input}: sensors at coordinates, which only reconstruct takes; give row and column: channel,y,x,value"
        )
    sigma = _sigma(asked.sigma)
    readings = []
    for name, sensors in known.places.items():
        *places, values = np.array(sensors).T
        own = sigma.pop(name, None) if isinstance(sigma, dict) else sigma
        readings.append(points(student, name, np.stack(places, axis=1), values, own))
    beside = None if sigma == {} else sigma
    return observe(student, asked.task, known.values, known.masks, beside, str(asked.input), readings)


def _search(
    asked: argparse.Namespace, student: Student, observation: Observation, params: dict[str, Any]
) -> Answer | Posterior:
    """Return the likeliest fields, those of solver steps where these answer, or posterior samples if they are requested."""
    physics, field_steps = (0.0, 0) if asked.posterior else (1.0, FIELD_STEPS)
    start, usual = student.start_for(observation)
    usual = SEARCH | usual
    search = Search(
        steps=usual["steps"] if asked.steps is None else asked.steps,
        starts=as_int("--starts", usual["starts"] if asked.starts is None else asked.starts, 1, MOST),
        seed=asked.seed,
        batch=asked.batch,
        physics=physics if asked.physics is None else asked.physics,
        optimiser=asked.optimiser,
        field_steps=field_steps if asked.field_steps is None else asked.field_steps,
        field_prior=asked.field_prior,
        progress=(progress := Progress(asked.task)),
    )
    if asked.posterior is not None:
        count = as_int("--posterior", asked.posterior, 2, MOST)
        found: Answer | Posterior = posterior(student, observation, count, params, search, start)
    else:
        solves = asked.task == "forward" and asked.solver and student.head > 0 and not asked.sigma
        solved = solve_inputs(student, observation, params, search.batch) if solves else None
        found = solved or _searched(student, observation, params, search)
    progress.close()
    return found


def _searched(student: Student, observation: Observation, params: dict[str, Any], search: Search) -> Answer:
    """Return the likeliest fields, from the guess of the student's start network if it has one."""
    start, _ = student.start_for(observation)
    first = None if start is None else start.vectors(student, observation, params)
    return solve_task(student, observation, params, search, first=first)


def _summary(answer: Answer | Posterior) -> list[str]:
    """Return a line for each of the first fields, with its distance from the known values and residual, and any warning."""
    lines = []
    for i in range(min(_SHOWN, len(answer.mismatch))):
        norms = {norm: math.sqrt(float(values[i].square().mean())) for norm, values in answer.residual.items()}
        distance = math.sqrt(float(answer.mismatch[i].square().mean()))
        lines.append(f"field {i}: {distance:.3g} sigma from what is known; residual {residual_text(norms)}")
    if len(answer.mismatch) > len(lines):
        lines.append(f"and {len(answer.mismatch) - len(lines)} more, in the file")
    own = (isinstance(answer, Answer) and answer.first) or answer  # a search over the field can meet any values
    distances = own.mismatch.reshape(len(own.mismatch), -1).square().mean(dim=1).sqrt()
    if far := int((distances > FAR).sum()):
        lines.append(
            f"warning: {far} of {len(distances)} fields of the student lie more than {FAR:g} sigma from what is known: it "
            "cannot make such a field, or needs more --steps or --starts"
        )
    return lines


def _sigma(words: Sequence[str]) -> float | dict[str, float] | None:
    """Parse --sigma: one number for all channels, or numbers by channel; None if it is not given."""
    if len(words) == 1 and "=" not in words[0]:
        try:
            return float(words[0])
        except ValueError:
            raise UserError(f"--sigma={words[0]}: expected a number, or CHANNEL=NUMBER") from None
    return named_numbers("--sigma", words, "pressure=0.001, or one number for all") or None
