"""`pidscale sample`: draw fields from a student or a teacher. Needs the base installation only."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Mapping

from torch import Tensor

from pidscale.app.files import check_target, write_npz
from pidscale.app.opening import open_generator
from pidscale.app.output import residual_text
from pidscale.app.parser import named_numbers
from pidscale.config import UserError
from pidscale.figures.draw import draw_fields
from pidscale.figures.png import figure_class, write_png
from pidscale.generator.generator import TEACHER_STEPS, Fields, Generator, Teacher
from pidscale.generator.student import Student


def run(asked: argparse.Namespace) -> None:
    """Draw samples, write them or a picture of them, and print the root mean square of each norm of their residual.

    Args:
        asked: Parsed arguments.

    Raises:
        UserError: When an argument is wrong or a file cannot be written; checked before sampling if possible.
    """
    if asked.out is None and asked.picture is None:
        raise UserError("--out, --picture: neither is given; name a file for the samples, or for a picture of them")
    for option, path, ending in (("--out", asked.out, ".npz"), ("--picture", asked.picture, ".png")):
        if path is not None:
            check_target(option, path, ending)
    if asked.picture is not None:
        figure_class(asked.picture)
    params = named_numbers("--param", asked.param, "diffusivity=0.002")
    if asked.nfe == 1 and asked.teacher is not None:
        raise UserError(
            f"--teacher={asked.teacher}: only --nfe above 1 calls the teacher; set --nfe, or omit --teacher"
        )
    generator = open_generator(asked, asked.teacher).with_precision(asked.precision)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fields = _sample(generator, asked, params)
    for one in caught:
        print(f"warning: {one.message}")
    if asked.out is not None:
        write_npz(asked.out, {"equation": generator.pde.name, **fields})
    residual = residual_text(_residual(generator, fields, asked.batch))
    where = asked.student if asked.out is None else asked.out
    print(f"{where}: {asked.count} samples of {generator.pde.name}; root mean square residual: {residual}")
    if asked.picture is not None:
        write_png(asked.picture, draw_fields(generator, {"sample": fields}))
        print(f"picture: {asked.picture}")


def _sample(generator: Student | Teacher, asked: argparse.Namespace, params: Mapping[str, float]) -> Fields:
    """Return samples of a student or a teacher. Raises UserError for arguments that do not apply to it."""
    if isinstance(generator, Teacher):
        if asked.nfe > 1:
            raise UserError(f"--nfe={asked.nfe}: network calls of a student; a teacher takes --steps")
        steps = TEACHER_STEPS if asked.steps is None else asked.steps
        return generator.sample(asked.count, seed=asked.seed, batch=asked.batch, steps=steps, params=params)
    if asked.steps is not None:
        raise UserError(f"--steps={asked.steps}: solver steps of a teacher; a student takes --nfe")
    if asked.nfe > 1 and generator.teacher is None:
        raise UserError(f"--nfe={asked.nfe}: needs the student's teacher; name its folder with --teacher")
    return generator.sample(asked.count, seed=asked.seed, batch=asked.batch, params=params, nfe=asked.nfe)


def _residual(generator: Generator, fields: Mapping[str, Tensor], batch: int) -> dict[str, float]:
    """Return the root mean square over all samples of each norm of the residual, relative to the scale of the equation."""
    count = len(fields[generator.channels[0]])
    sums: dict[str, float] = {}
    for start in range(0, count, batch):
        part = generator.residual({name: values[start : start + batch] for name, values in fields.items()})
        for norm, values in part.items():
            sums[norm] = sums.get(norm, 0.0) + float(values.double().square().sum())
    return {norm: math.sqrt(total / count) for norm, total in sums.items()}
