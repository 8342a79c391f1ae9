"""A user's own equation is tried before a set of it is begun, and whatever its code raises becomes one line.

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
from pidscale.pde.base import Pde
from pidscale.pde.evolution import Evolution
from pidscale.pde.residuals import residual_squares

COPIES = 2  # of the sample that is tried: a residual that forgets the batch is seen with more than one


@contextmanager
def blamed(pde: Pde, what: str) -> Iterator[None]:
    """Turn what the code of a user's own equation raises into a UserError of one line. what: what was being done."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if ":" not in pde.name:
            raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
        raise UserError(f"pde.name={pde.name!r}: its {what} failed ({said}); mend it there") from None


def check_own(pde: Pde, grid: Grid, seed: int, counter: int = 0) -> None:
    """Draw one sample of a user's own equation and take its residual. UserError for what no set could be made of.

    The library's own equations are not tried: their tests do that.
    """
    if ":" not in pde.name:
        return
    with blamed(pde, f"sample {counter}"):
        solved, params = pde.sample(seed, counter, grid)
        fields, expected = np.asarray(solved, dtype=np.float64), (len(pde.channels), *grid.shape)
        if fields.shape != expected:
            raise ValueError(f"shape {fields.shape}, expected {expected}")
        json.dumps(params)
        varying = torch.tensor([[float(params[name]) for name in pde.varying]] * COPIES, dtype=torch.float64)
    with blamed(pde, "residual"):
        x = torch.from_numpy(fields).float()[None].repeat(COPIES, 1, 1, 1).requires_grad_()
        values = pde.residual(Window(grid), x, varying)["interior"].values
        wanted: tuple[int, ...] = (COPIES, *values.shape[1:])
        if isinstance(pde, Evolution):
            wanted = (COPIES, pde.frames - 1, len(pde.species), *grid.shape)
        if tuple(values.shape) != wanted:
            raise ValueError(f"interior of shape {tuple(values.shape)} for {COPIES} samples, expected {wanted}")
        if not values.requires_grad:
            raise ValueError("interior carries no gradient to the fields; use differentiable operations of torch alone")
        for norm, square in residual_squares(pde, grid, x, varying).items():
            if tuple(square.shape) != (COPIES,):
                raise ValueError(f"{norm} of shape {tuple(square.shape)} for {COPIES} samples, expected ({COPIES},)")
