"""Tasks on held-out fields: what is known of them, and how near an answer is to the truth. Knows no methods and no files.

`forward` knows the inputs of the equation, `inverse` its solution, `reconstruct` 3 % of the points of all channels, `noisy`
the same with noise of 1 % of each channel's standard deviation, `columns` three columns of points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.generator.generator import Generator
from pidscale.generator.tasks.observations import Observation, observe
from pidscale.pde.base import Samples, solution_mask
from pidscale.pde.residuals import residual_rms

SHARE = 0.03  # of the points that `reconstruct` and `noisy` know
NOISE = 0.01  # of a channel's standard deviation
COLUMNS = 3
TUNED = 16  # fields at the head of the test split on which the tolerance of noiseless readings was chosen


def kind_of(task: str) -> str:
    """Return the kind of question that a task puts to a method."""
    return task if task in ("sample", "forward", "inverse") else "reconstruct"


def points(shape: tuple[int, int, int], count: int, task: str) -> Tensor:
    """Return where values of `count` fields are known, bool [N, C, Y, X], at the same places of all channels."""
    _, height, width = shape
    if task == "columns":
        known = torch.zeros(height, width, dtype=torch.bool)
        known[:, [width * (2 * k + 1) // (2 * COLUMNS) for k in range(COLUMNS)]] = True
        return known.expand(count, *shape)
    places = max(1, round(SHARE * height * width))
    drawn = seeds.uniform(0, "benchmark/points", range(count), height * width)
    known = torch.zeros(count, height * width, dtype=torch.bool)
    known.scatter_(1, drawn.argsort(dim=1)[:, :places], True)
    return known.reshape(count, 1, height, width).expand(count, *shape)


def observation(generator: Generator, truth: Samples, task: str) -> Observation:
    """Return what a task knows of truths.

    Args:
        generator: Any generator of the equation, for its channels and units.
        truth: Held-out fields in physical units.
        task: `forward`, `inverse`, `reconstruct`, `noisy` or `columns`.

    Returns:
        The known values.
    """
    fields = truth.fields
    if task in ("forward", "inverse"):
        solution = solution_mask(generator.pde, generator.grid)
        given = (solution if task == "inverse" else ~solution).flatten(1).any(dim=1)
        channels = generator.split(fields)
        known = {name: channels[name] for name, k in zip(generator.channels, given, strict=True) if k}
        return observe(generator, task, known)
    shape = (fields.shape[1], *generator.grid.shape)
    mask = points(shape, len(fields), task)
    sigma = None
    if task == "noisy":
        spread = NOISE * torch.tensor(generator.normaliser.std)
        noise = seeds.normal(0, "benchmark/noise", range(len(fields)), shape)
        fields = fields + spread[:, None, None] * noise
        sigma = dict(zip(generator.channels, spread.tolist(), strict=True))
    return observe(generator, "reconstruct", generator.split(fields), generator.split(mask), sigma)


def answer_row(generator: Generator, found: Samples, truth: Samples, known_NCYX: Tensor) -> dict[str, float]:
    """Measure answers.

    Args:
        generator: Any generator of the equation.
        found: Answers in physical units.
        truth: The truths that were asked about.
        known_NCYX: Where values were known, bool.

    Returns:
        Residuals by norm; of each channel that is not known whole the relative L2 error over what is not known
        (`error_CHANNEL`); for a permeability of two phases the share of unknown points in the wrong phase (`misclassified`).
    """
    norms = residual_rms(generator.pde, generator.grid, *found)
    row = {f"residual_{name}": value for name, value in norms.items()}
    for c, name in enumerate(generator.channels):
        hidden = ~known_NCYX[:, c]
        if not hidden.any():
            continue
        true = truth.fields[:, c]
        apart = torch.where(hidden, found.fields[:, c] - true, 0.0).flatten(1).norm(dim=1)
        size = torch.where(hidden, true, 0.0).flatten(1).norm(dim=1)
        row[f"error_{name}"] = float((apart / size).mean())
    hidden = ~known_NCYX[:, 0]
    if generator.pde.params_dict().get("variant") == "two_phase" and hidden.any():
        middle = generator.normaliser.mean[0]
        wrong = (found.fields[:, 0] > middle) != (truth.fields[:, 0] > middle)
        row["misclassified"] = float(wrong[hidden].float().mean())
    return row
