"""Tries a user's own equation before a set of it is begun, and turns what its code raises into one line.

Must not know shards, files or training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from pidscale.config import UserError
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.pde.base import Correcting, Pde, solution_mask
from pidscale.pde.evolution import Evolution
from pidscale.pde.residuals import residual_squares

WORSE = 10.0  # times the residual of a truth that a solver step may leave it with
ROUNDING = 1e-5  # of the largest value, by which a solver step may change an input

COPIES = 2  # of the sample that is tried: with one, a residual that reduces over the batch would go unnoticed


@contextmanager
def equation_errors(pde: Pde, what: str) -> Iterator[None]:
    """Turn exceptions from the code of a user's own equation into a UserError of one line.

    Args:
        pde: The equation.
        what: What the equation computes, for the message.

    Yields:
        Nothing; the body of the `with` statement calls the equation.

    Raises:
        UserError: The body raised it, or the code of a user's own equation raised an exception.
        Exception: The code of the library's own equation raised it.
        SystemExit: The code of the library's own equation raised it.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if ":" not in pde.name:
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
        raise UserError(f"pde.name={pde.name!r}: its {what} failed ({reason}); correct the equation") from None


def check_own_equation(pde: Pde, grid: Grid, seed: int, counter: int = 0) -> None:
    """Draw one sample of a user's own equation and compute its residual.

    Raises UserError if no set could be made of the equation. The library's own equations are not tried: tests do that.

    Args:
        pde: The equation.
        grid: The grid of the set.
        seed: The seed of the set.
        counter: The counter of the sample.
    """
    if ":" not in pde.name:
        return
    with equation_errors(pde, f"sample {counter}"):
        fields, varying = _draw(pde, grid, seed, counter)
    with equation_errors(pde, "residual"):
        x = torch.from_numpy(fields).float()[None].repeat(COPIES, 1, 1, 1).requires_grad_()
        _check_residual(pde, grid, x, varying)
    if isinstance(pde, Correcting):
        with equation_errors(pde, "correct"):
            _check_correct(pde, grid, x, varying)


def _draw(pde: Pde, grid: Grid, seed: int, counter: int) -> tuple[np.ndarray, torch.Tensor]:
    """Return the fields [C, Y, X] of one sample and its varying parameters, repeated to [COPIES, P]."""
    solved, params = pde.sample(seed, counter, grid)
    fields = np.asarray(solved, dtype=np.float64)
    expected = (len(pde.channels), *grid.shape)
    if fields.shape != expected:
        raise ValueError(f"shape {fields.shape}, expected {expected}")
    json.dumps(params)
    return fields, torch.tensor([[float(params[name]) for name in pde.varying]] * COPIES, dtype=torch.float64)


def _check_residual(pde: Pde, grid: Grid, x: torch.Tensor, varying: torch.Tensor) -> None:
    """Raise ValueError unless residual and norms have the right shapes and carry a gradient."""
    values = pde.residual(Window(grid), x, varying)["interior"].values
    expected: tuple[int, ...] = (COPIES, *values.shape[1:])
    if isinstance(pde, Evolution):
        expected = (COPIES, pde.frames - 1, len(pde.species), *grid.shape)
    if tuple(values.shape) != expected:
        raise ValueError(f"interior of shape {tuple(values.shape)} for {COPIES} samples, expected {expected}")
    if not values.requires_grad:
        raise ValueError("interior carries no gradient to the fields; use only differentiable operations of torch")
    for norm, square in residual_squares(pde, grid, x, varying).items():
        if tuple(square.shape) != (COPIES,):
            raise ValueError(f"{norm} of shape {tuple(square.shape)} for {COPIES} samples, expected ({COPIES},)")


def _check_correct(pde: Pde, grid: Grid, x: torch.Tensor, varying: torch.Tensor) -> None:
    """Raise ValueError unless a solver step keeps shape, gradient, inputs and the residual of a truth."""
    assert isinstance(pde, Correcting)
    found = pde.correct(Window(grid), x, varying, 1)
    if tuple(found.shape) != tuple(x.shape):
        raise ValueError(f"fields of shape {tuple(found.shape)}, expected {tuple(x.shape)}")
    if not found.requires_grad:
        raise ValueError("fields carry no gradient; use only differentiable operations of torch")
    moved = (found - x).detach().abs().masked_fill(solution_mask(pde, grid), 0.0)
    if not float(moved.max()) <= ROUNDING * float(x.abs().max()):
        raise ValueError("it changes inputs; it may change only what the equation is solved for")
    before, after = (residual_squares(pde, grid, fields, varying)["l2"].sqrt().max() for fields in (x, found))
    if not float(after) <= WORSE * max(float(before), ROUNDING):
        raise ValueError(f"a step leaves a truth of residual {float(before):.1e} with one of {float(after):.1e}")
