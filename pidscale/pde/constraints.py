"""Hard constraints: maps that make fields satisfy a part of their equation exactly. Knows no models, no files and no ranks.

A constraint asks the window for what lies beyond the rows at hand. Periodicity needs no map, because a periodic grid has no
repeated end point. `two_phase` is a step, whose gradient is passed on unchanged. It goes with the head: a generator without
solver steps makes the fields of its network. A search, for which the energy and its gradient have to agree, goes without.
Shapes: fields_BCYX joint physical fields.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.ops.window import Window
from pidscale.pde.base import Pde


def _zero_edge(pde: Pde, window: Window, fields_BCYX: Tensor) -> Tensor:
    """Set solution channels to 0 on all four edges."""
    inside = torch.zeros(fields_BCYX.shape[-2:], dtype=torch.bool, device=fields_BCYX.device)
    inside[int(window.first) : len(inside) - int(window.last), 1:-1] = True
    unchanged = torch.stack([inside | (channel.role != "solution") for channel in pde.channels])
    return torch.where(unchanged, fields_BCYX, torch.zeros_like(fields_BCYX))


def _zero_mean(pde: Pde, window: Window, fields_BCYX: Tensor) -> Tensor:
    """Subtract the mean of every channel."""
    return fields_BCYX - window.total(fields_BCYX.sum(dim=(2, 3), keepdim=True)) / math.prod(window.grid.shape)


def _two_phase(pde: Pde, window: Window, fields_BCYX: Tensor) -> Tensor:
    """Replace every value of the first channel by the nearer phase."""
    low, high = cast(Phased, pde).phases
    a = fields_BCYX[:, :1]
    nearer = torch.where(a > (low + high) / 2, torch.full_like(a, high), torch.full_like(a, low))
    return torch.cat([nearer + (a - a.detach()), fields_BCYX[:, 1:]], dim=1)


class Phased(Protocol):
    """An equation with a coefficient of two phases, its first channel.

    Attributes:
        phases: The lower and the higher value.
    """

    phases: tuple[float, float]


CONSTRAINTS: dict[str, Callable[[Pde, Window, Tensor], Tensor]] = {
    "zero_edge": _zero_edge,
    "zero_mean": _zero_mean,
    "two_phase": _two_phase,
}
STEPS = ("two_phase",)
"""Constraints that are steps: their own derivative is zero almost everywhere."""


def constrain(pde: Pde, window: Window, names: Sequence[str], fields_BCYX: Tensor, smooth: bool = False) -> Tensor:
    """Apply constraints to fields, one after the other.

    Args:
        pde: The equation of the fields.
        window: The rows at hand; `zero_mean` takes one sum over all ranks that share the field.
        names: Constraints, of CONSTRAINTS.
        fields_BCYX: Joint physical fields, the rows at hand.
        smooth: Whether to leave out the constraints that are steps.

    Returns:
        Fields that satisfy the constraints.
    """
    for name in names:
        if not (smooth and name in STEPS):
            fields_BCYX = CONSTRAINTS[name](pde, window, fields_BCYX)
    return fields_BCYX


def check_constraints(pde: Pde, names: Sequence[str]) -> None:
    """Check that an equation has these constraints.

    Args:
        pde: The equation.
        names: Constraints asked for.

    Raises:
        UserError: When it does not have one of them, which is named.
    """
    for name in names:
        if name not in pde.constraints:
            offered = ", ".join(pde.constraints) or "none"
            raise UserError(
                f"distill.constraints: {pde.name} has no {name!r}; it has: {offered}; name some of these, or set "
                "distill.constraints=[]"
            )
