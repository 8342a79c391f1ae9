"""Minimise one energy for each sample of a batch, by L-BFGS or by Adam. Knows no fields, no equations and no students.

torch's own L-BFGS takes a batch for one vector: one history and one step length for all, so that a sample's answer would
depend on its neighbours. Here each sample has its own of both, and one evaluation tries one step of every sample that has
not finished: it is taken where the energy falls enough (Armijo), else it is shortened and tried again. Source: Nocedal and
Wright, Numerical Optimization, 2006, algorithms 7.4 and 3.1.

Shapes: x_BD one row for each sample; energies [B].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.precision import float32_island

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""x [b, D] of the samples `rows` [b] -> their energies [b], and whether each has come far enough, bool [b]."""
Tell = Callable[[int, float], None]
"""Told after every evaluation: evaluations so far, mean energy."""

MEMORY = 10  # pairs of a history
ARMIJO = 1e-4  # share of the decrease along the slope that a step has to bring
FIRST = 0.1  # root mean square of a step whose length nothing is known of
PATIENCE = 10  # steps refused in a row before a history is forgotten; twice as many end a search
STILL, STILL_STEPS = 1e-6, 10  # a relative decrease that counts as none, and so many of them in a row end a search
RATE, FADE = 0.05, (0.9, 0.999)  # Adam (Kingma and Ba, 2015); the rate falls to 0 as a cosine


@dataclass(frozen=True)
class Minimum:
    """The best points found [B, D], their energies [B], and evaluations (network call and gradient) of each, int [B]."""

    x_BD: Tensor
    energy_B: Tensor
    calls_B: Tensor


def minimise(objective: Objective, start_BD: Tensor, steps: int, optimiser: str, tell: Tell) -> Minimum:
    """Search from start for at most `steps` evaluations. Raises UserError for another optimiser."""
    if optimiser not in OPTIMISERS:
        raise UserError(f"optimiser={optimiser!r}: expected one of {', '.join(OPTIMISERS)}")
    return OPTIMISERS[optimiser](objective, start_BD.detach(), steps, tell)


def _evaluate(objective: Objective, x_bD: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Energies [b], their gradients [b, D], and who has come far enough.

    Without TF32: a step is judged by a difference of two energies, which is smaller than its rounding.
    """
    with torch.enable_grad(), float32_island(x_bD.device):
        point = x_bD.detach().requires_grad_()
        energy, reached = objective(point, rows)
        (slope,) = torch.autograd.grad(energy.sum(), point)
    return energy.detach(), slope, reached


class _History:
    """The last pairs of each sample: steps s, changes of the slope y. A ring of MEMORY slots with a count of its own."""

    def __init__(self, x_BD: Tensor) -> None:
        samples, size = x_BD.shape
        self.s, self.y = (x_BD.new_zeros(MEMORY, samples, size) for _ in range(2))
        self.rho, self.gamma = x_BD.new_zeros(MEMORY, samples), x_BD.new_ones(samples)
        self.count = torch.zeros(samples, dtype=torch.long, device=x_BD.device)

    def push(self, rows: Tensor, s_bD: Tensor, y_bD: Tensor) -> None:
        """Remember pairs; those without positive curvature, which would not give a descent, are left out."""
        along, square = (s_bD * y_bD).sum(dim=1), y_bD.square().sum(dim=1)
        good = along > 1e-7 * square.sqrt() * s_bD.norm(dim=1)
        rows, s_bD, y_bD, along, square = (t[good] for t in (rows, s_bD, y_bD, along, square))
        slot = self.count[rows] % MEMORY
        self.s[slot, rows], self.y[slot, rows], self.rho[slot, rows] = s_bD, y_bD, 1 / along
        self.gamma[rows] = along / square
        self.count[rows] += 1

    def direction(self, rows: Tensor, slope_bD: Tensor) -> Tensor:
        """-H slope by the two loops over the pairs of each sample, the newest first."""
        q, kept = slope_bD.clone(), []
        for back in range(1, 1 + min(MEMORY, int(self.count[rows].max()))):
            slot = (self.count[rows] - back) % MEMORY
            s, y = self.s[slot, rows], self.y[slot, rows]
            rho = self.rho[slot, rows]  # 0 where there is no such pair
            alpha = rho * (s * q).sum(dim=1)
            q -= alpha[:, None] * y
            kept.append((s, y, rho, alpha))
        q *= self.gamma[rows, None]
        for s, y, rho, alpha in reversed(kept):
            q += (alpha - rho * (y * q).sum(dim=1))[:, None] * s
        return -q

    def forget(self, rows: Tensor) -> None:
        """Start anew for these samples."""
        self.count[rows], self.rho[:, rows] = 0, 0.0
        self.gamma[rows] = 1.0


def _first_length(slope_bD: Tensor) -> Tensor:
    return FIRST * math.sqrt(slope_bD.shape[1]) / slope_bD.norm(dim=1).clamp_min(torch.finfo(slope_bD.dtype).tiny)


def _lbfgs(objective: Objective, start_BD: Tensor, steps: int, tell: Tell) -> Minimum:
    x, everyone = start_BD.clone(), torch.arange(len(start_BD), device=start_BD.device)
    energy, slope, done = _evaluate(objective, x, everyone)
    calls, refused, still = (torch.zeros_like(everyone) for _ in range(3))
    calls += 1
    history, direction, length = _History(x), -slope, _first_length(slope)
    rounding = 4 * torch.finfo(x.dtype).eps  # of an energy: a step may not be refused for less
    tell(1, float(energy.mean()))
    for step in range(2, steps + 1):
        rows = everyone[~done]
        if not len(rows):
            break
        move = length[rows, None] * direction[rows]
        found, sloped, reached = _evaluate(objective, x[rows] + move, rows)
        calls[rows] += 1
        wanted = ARMIJO * (slope[rows] * move).sum(dim=1) + rounding * energy[rows].abs()
        takes = found <= energy[rows] + wanted  # False where it is not finite
        _shorten(rows[~takes], found[~takes], energy, slope, direction, length)
        refused[rows[~takes]] += 1
        taken = rows[takes]
        still[taken] = torch.where(
            energy[taken] - found[takes] > STILL * energy[taken].abs(), torch.zeros_like(taken), still[taken] + 1
        )
        history.push(taken, move[takes], sloped[takes] - slope[taken])
        x[taken] += move[takes]
        energy[taken], slope[taken], done[taken], refused[taken] = found[takes], sloped[takes], reached[takes], 0
        history.forget(lost := everyone[~done & (refused == PATIENCE)])
        _turn(torch.cat([taken, lost]), history, slope, direction, length)
        done |= (refused >= 2 * PATIENCE) | (still >= STILL_STEPS)
        tell(step, float(energy.mean()))
    return Minimum(x, energy, calls)


def _shorten(rows: Tensor, found_b: Tensor, energy: Tensor, slope: Tensor, direction: Tensor, length: Tensor) -> None:
    """New step lengths of refused samples: where the parabola through what is known is least, from a tenth to a half."""
    along = length[rows] * (slope[rows] * direction[rows]).sum(dim=1)
    best = -along / (2 * (found_b - energy[rows] - along))
    length[rows] *= torch.nan_to_num(best, nan=0.1, posinf=0.1, neginf=0.1).clamp(0.1, 0.5)


def _turn(rows: Tensor, history: _History, slope: Tensor, direction: Tensor, length: Tensor) -> None:
    """New directions and step lengths of 1; where nothing is known, or a direction does not descend, along the slope."""
    if not len(rows):
        return
    ahead, slopes = history.direction(rows, slope[rows]), slope[rows]
    blind = (history.count[rows] == 0) | ~((ahead * slopes).sum(dim=1) < 0)
    history.forget(rows[blind])
    direction[rows] = torch.where(blind[:, None], -slopes, ahead)
    length[rows] = torch.where(blind, _first_length(slopes), torch.ones_like(length[rows]))


def _adam(objective: Objective, start_BD: Tensor, steps: int, tell: Tell) -> Minimum:
    x, everyone = start_BD.clone(), torch.arange(len(start_BD), device=start_BD.device)
    best, mean, square = x.clone(), torch.zeros_like(x), torch.zeros_like(x)
    least, calls = x.new_full((len(x),), math.inf), torch.zeros_like(everyone)
    done = torch.zeros_like(everyone, dtype=torch.bool)
    for step in range(1, steps + 1):
        rows = everyone[~done]
        if not len(rows):
            break
        found, slope, reached = _evaluate(objective, x[rows], rows)
        calls[rows] += 1
        better = rows[found < least[rows]]
        best[better], least[rows] = x[better], torch.fmin(found, least[rows])
        done[rows] = reached | ~slope.isfinite().all(dim=1)
        mean[rows] += (1 - FADE[0]) * (slope - mean[rows])
        square[rows] += (1 - FADE[1]) * (slope.square() - square[rows])
        rate = RATE * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
        size = (square[rows] / (1 - FADE[1] ** step)).sqrt() + torch.finfo(x.dtype).tiny
        x[rows] -= rate * mean[rows] / (1 - FADE[0] ** step) / size
        tell(step, float(least.mean()))
    return Minimum(best, least, calls)


OPTIMISERS = {"lbfgs": _lbfgs, "adam": _adam}
