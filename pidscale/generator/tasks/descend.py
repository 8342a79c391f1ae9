"""Minimisation of one energy for each sample of a batch, by L-BFGS or by Adam. Knows no fields, equations or students.

torch's own L-BFGS takes a batch for one vector: one history and one step length for all samples, so that the result of a
sample would depend on its neighbours. Here each sample has its own history and step length, and one evaluation tries one step
of every sample that has not finished. A step is accepted if the energy falls enough (Armijo), else it is shortened and tried
again. Source: Nocedal and Wright, Numerical Optimization, 2006, algorithms 7.4 and 3.1.

Shapes: x_BD one row for each sample of the batch; x_bD the rows of some of them; energies [B].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.precision import float32_island

Energy = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""x [b, D] of the samples with the numbers `rows` [b] -> their energies [b], and whether each may end, bool [b]."""
Report = Callable[[int, float], None]
"""Called after every evaluation with the number of evaluations and the mean energy."""

MEMORY = 10  # pairs in a history
ARMIJO = 1e-4  # fraction of the decrease along the slope that an accepted step has to bring
FIRST_STEP = 0.1  # root mean square of a step without a history
PATIENCE = 10  # rejected steps in a row after which a history is dropped; twice as many end a search
STALL = 1e-6  # relative decrease of the energy below which a step counts as a stall
STALL_STEPS = 10  # stalls in a row that end a search
ADAM_RATE = 0.05  # initial learning rate of Adam, which falls to 0 as a cosine
ADAM_BETAS = (0.9, 0.999)  # Kingma and Ba, Adam: a method for stochastic optimization, 2015


@dataclass(frozen=True)
class Minimum:
    """The best points of a search.

    Attributes:
        x_BD: Points.
        energy_B: Energies of the points.
        calls_B: Number of evaluations (a network call and its gradient) of each sample, int.
    """

    x_BD: Tensor
    energy_B: Tensor
    calls_B: Tensor


def minimise(energy: Energy, start_BD: Tensor, steps: int, optimiser: str, report: Report) -> Minimum:
    """Minimise the energy of each sample.

    Args:
        energy: The energies of samples, differentiable, and whether the search of each may end.
        start_BD: Points to start from.
        steps: Largest number of evaluations for each sample.
        optimiser: `lbfgs` or `adam`.
        report: Called after every evaluation.

    Returns:
        The best point of each sample.

    Raises:
        UserError: When the optimiser is unknown.
    """
    if optimiser not in OPTIMISERS:
        raise UserError(f"optimiser={optimiser!r}: expected one of {', '.join(OPTIMISERS)}")
    return OPTIMISERS[optimiser](energy, start_BD.detach(), steps, report)


def _evaluate(energy: Energy, x_bD: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return energies [b], their gradients [b, D], and whether the search of each may end.

    Without TF32: whether a step is accepted depends on a difference of two energies, which is smaller than its rounding.
    """
    with torch.enable_grad(), float32_island(x_bD.device):
        point = x_bD.detach().requires_grad_()
        found, may_end = energy(point, rows)
        (slope,) = torch.autograd.grad(found.sum(), point)
    return found.detach(), slope, may_end


class _History:
    """The last MEMORY pairs of each sample, steps s and changes of the slope y, in a circular buffer."""

    def __init__(self, x_BD: Tensor) -> None:
        samples, size = x_BD.shape
        self.s = x_BD.new_zeros(MEMORY, samples, size)
        self.y = x_BD.new_zeros(MEMORY, samples, size)
        self.rho = x_BD.new_zeros(MEMORY, samples)
        self.gamma = x_BD.new_ones(samples)
        self.count = torch.zeros(samples, dtype=torch.long, device=x_BD.device)

    def push(self, rows: Tensor, s_bD: Tensor, y_bD: Tensor) -> None:
        """Store pairs, except those without positive curvature: with them a direction might not descend."""
        along = (s_bD * y_bD).sum(dim=1)
        square = y_bD.square().sum(dim=1)
        good = along > 1e-7 * square.sqrt() * s_bD.norm(dim=1)
        rows, s_bD, y_bD, along, square = (t[good] for t in (rows, s_bD, y_bD, along, square))
        slot = self.count[rows] % MEMORY
        self.s[slot, rows] = s_bD
        self.y[slot, rows] = y_bD
        self.rho[slot, rows] = 1 / along
        self.gamma[rows] = along / square
        self.count[rows] += 1

    def direction(self, rows: Tensor, slope_bD: Tensor) -> Tensor:
        """Return -H slope by the two-loop recursion over the pairs of each sample, from the newest one."""
        q = slope_bD.clone()
        kept = []
        for back in range(1, 1 + min(MEMORY, int(self.count[rows].max()))):
            slot = (self.count[rows] - back) % MEMORY
            s = self.s[slot, rows]
            y = self.y[slot, rows]
            rho = self.rho[slot, rows]  # 0 if there is no such pair
            alpha = rho * (s * q).sum(dim=1)
            q -= alpha[:, None] * y
            kept.append((s, y, rho, alpha))
        q *= self.gamma[rows, None]
        for s, y, rho, alpha in reversed(kept):
            q += (alpha - rho * (y * q).sum(dim=1))[:, None] * s
        return -q

    def drop(self, rows: Tensor) -> None:
        """Drop the pairs of these samples."""
        self.count[rows] = 0
        self.rho[:, rows] = 0.0
        self.gamma[rows] = 1.0


def _first_length(slope_bD: Tensor) -> Tensor:
    """Return the step lengths [b] along slopes for which there is no history."""
    return FIRST_STEP * math.sqrt(slope_bD.shape[1]) / slope_bD.norm(dim=1).clamp_min(torch.finfo(slope_bD.dtype).tiny)


def _lbfgs(objective: Energy, start_BD: Tensor, steps: int, report: Report) -> Minimum:
    x = start_BD.clone()
    everyone = torch.arange(len(start_BD), device=start_BD.device)
    energy, slope, done = _evaluate(objective, x, everyone)
    calls = torch.ones_like(everyone)
    rejected = torch.zeros_like(everyone)
    stalled = torch.zeros_like(everyone)
    history = _History(x)
    direction = -slope
    length = _first_length(slope)
    rounding = 4 * torch.finfo(x.dtype).eps  # of an energy: a smaller increase rejects no step
    report(1, float(energy.mean()))
    for step in range(2, steps + 1):
        rows = everyone[~done]
        if not len(rows):
            break
        move = length[rows, None] * direction[rows]
        new_energy, new_slope, may_end = _evaluate(objective, x[rows] + move, rows)
        calls[rows] += 1
        wanted = ARMIJO * (slope[rows] * move).sum(dim=1) + rounding * energy[rows].abs()
        accepts = new_energy <= energy[rows] + wanted  # False where it is not finite
        _shorten(rows[~accepts], new_energy[~accepts], energy, slope, direction, length)
        rejected[rows[~accepts]] += 1
        accepted = rows[accepts]
        fell = energy[accepted] - new_energy[accepts] > STALL * energy[accepted].abs()
        stalled[accepted] = torch.where(fell, torch.zeros_like(accepted), stalled[accepted] + 1)
        history.push(accepted, move[accepts], new_slope[accepts] - slope[accepted])
        x[accepted] += move[accepts]
        energy[accepted] = new_energy[accepts]
        slope[accepted] = new_slope[accepts]
        done[accepted] = may_end[accepts]
        rejected[accepted] = 0
        lost = everyone[~done & (rejected == PATIENCE)]
        history.drop(lost)
        _turn(torch.cat([accepted, lost]), history, slope, direction, length)
        done |= (rejected >= 2 * PATIENCE) | (stalled >= STALL_STEPS)
        report(step, float(energy.mean()))
    return Minimum(x, energy, calls)


def _shorten(rows: Tensor, found_b: Tensor, energy: Tensor, slope: Tensor, direction: Tensor, length: Tensor) -> None:
    """Shorten the steps of rejected samples to the minimum of a parabola, but to a tenth at least and a half at most.

    The parabola has the energy and the slope at the point and the energy at the rejected step.
    """
    along = length[rows] * (slope[rows] * direction[rows]).sum(dim=1)
    best = -along / (2 * (found_b - energy[rows] - along))
    length[rows] *= torch.nan_to_num(best, nan=0.1, posinf=0.1, neginf=0.1).clamp(0.1, 0.5)


def _turn(rows: Tensor, history: _History, slope: Tensor, direction: Tensor, length: Tensor) -> None:
    """Set directions and step lengths: quasi-Newton steps of length 1, or down the slope if these are missing or ascend."""
    if not len(rows):
        return
    slopes = slope[rows]
    ahead = history.direction(rows, slopes)
    blind = (history.count[rows] == 0) | ~((ahead * slopes).sum(dim=1) < 0)
    history.drop(rows[blind])
    direction[rows] = torch.where(blind[:, None], -slopes, ahead)
    length[rows] = torch.where(blind, _first_length(slopes), torch.ones_like(length[rows]))


def _adam(objective: Energy, start_BD: Tensor, steps: int, report: Report) -> Minimum:
    x = start_BD.clone()
    everyone = torch.arange(len(start_BD), device=start_BD.device)
    best = x.clone()
    mean = torch.zeros_like(x)
    square = torch.zeros_like(x)
    least = x.new_full((len(x),), math.inf)
    calls = torch.zeros_like(everyone)
    done = torch.zeros_like(everyone, dtype=torch.bool)
    for step in range(1, steps + 1):
        rows = everyone[~done]
        if not len(rows):
            break
        energy, slope, may_end = _evaluate(objective, x[rows], rows)
        calls[rows] += 1
        better = rows[energy < least[rows]]
        best[better] = x[better]
        least[rows] = torch.fmin(energy, least[rows])
        done[rows] = may_end | ~slope.isfinite().all(dim=1)
        mean[rows] += (1 - ADAM_BETAS[0]) * (slope - mean[rows])
        square[rows] += (1 - ADAM_BETAS[1]) * (slope.square() - square[rows])
        rate = ADAM_RATE * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
        size = (square[rows] / (1 - ADAM_BETAS[1] ** step)).sqrt() + torch.finfo(x.dtype).tiny
        x[rows] -= rate * mean[rows] / (1 - ADAM_BETAS[0] ** step) / size
        report(step, float(least.mean()))
    return Minimum(best, least, calls)


OPTIMISERS = {"lbfgs": _lbfgs, "adam": _adam}
