"""Fields that agree with what is known of them: forward, inverse and reconstruction with one student, by its noise.

    minimise over z   |M (d(eps) - x')|^2 / (2 sigma^2)  +  physics D / 2 sum_k R_k(d(eps))^2 / s_k^2  +  |z|^2 / 2

M: where values x' are known, sigma their noise; R_k: the residuals l2, dual and boundary, with the scales s_k that the
student was distilled with; D: values of a field, so that with physics = 1 the equation weighs like one observation of every
value. z = (eps, p): the noise, and a standard normal number for each parameter of the equation that is not given, which is
drawn uniformly in its range: low + (high - low) Phi(p). The last term is the law of z, so the least energy is the likeliest
field (MAP; Zhang et al. 2026, algorithm 3). The search begins at several draws, and the least energy is
kept.

Whole channels that are known without noise stand in for the student's own in R; scattered points do not, since the jumps
they make in a field are all that a residual then sees. Knows no files and no ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.config import UserError
from pidscale.generator.arguments import amount, as_int, chosen
from pidscale.generator.generator import OneCall
from pidscale.generator.refine import Progress, residual_scales
from pidscale.generator.tasks.descend import Minimum, minimise
from pidscale.generator.tasks.observations import Observation
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde
from pidscale.pde.residuals import residual_squares
from pidscale.pde.terms import NORMS

MOST = 2**20  # starts, or posterior samples, of one observation: each has a counter of its own


@dataclass(frozen=True)
class Search:
    """How the least energy is looked for.

    steps: evaluations (a network call and its gradient) of a start at most. starts: draws the search begins at. seed: of
    the draws. batch: vectors searched at once; L-BFGS remembers twenty of the size of each. physics: the weight above.
    optimiser: `lbfgs` or `adam`. progress: told as it goes.
    """

    steps: int = 200
    starts: int = 4
    seed: int = 0
    batch: int = 64
    physics: float = 1.0
    optimiser: str = "lbfgs"
    progress: Progress | None = None

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("seed", 0), ("batch", 1)):
            as_int(name, getattr(self, name), least)
        as_int("starts", self.starts, 1, MOST)
        amount("physics", self.physics, zero=True)


def search_from(given: Mapping[str, Any], **defaults: Any) -> Search:
    """Settings by name. Raises UserError that names an unknown one."""
    known = [f.name for f in fields_of(Search)]
    for name in given:
        if name not in known:
            raise UserError(f"{name}: no setting of a search; there are {', '.join(known)}")
    return Search(**(defaults | dict(given)))


@dataclass(frozen=True)
class Answer:
    """Fields for n observations, the best of several starts.

    fields: as `sample` gives them, with the parameters, on the CPU; what is known is not pasted in. mismatch: root mean
    square of (field - known) / sigma over the known points, [n]. residual: relative, each [n]: `l2`, `dual`, `boundary`.
    energy: [n]. eps: the noise [n, C, Y, X] of the fields. calls: evaluations of all starts, int [n].
    """

    fields: dict[str, Tensor]
    mismatch: Tensor
    residual: dict[str, Tensor]
    energy: Tensor
    eps: Tensor
    calls: Tensor


@dataclass(frozen=True)
class Posed:
    """A task in full: what is known, and what makes fields of a vector.

    draw: (eps [b, C, Y, X], params [b, P]) -> physical fields. params_NP: NaN where a parameter is not known. prior: weight
    of |eps|^2 / 2.
    """

    pde: Pde
    grid: Grid
    draw: Callable[[Tensor, Tensor], Tensor]
    observation: Observation
    params_NP: Tensor
    scales: Mapping[str, float]
    physics: float
    prior: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one joint field."""
        return len(self.pde.channels), *self.grid.shape

    def made(self, z_bD: Tensor, owners_b: Tensor) -> tuple[Tensor, Tensor]:
        """Fields and parameters of vectors; owners: the observation of each."""
        size = math.prod(self.shape)
        given = self.params_NP[owners_b]
        ranges = torch.tensor(list(self.pde.varying.values()), dtype=z_bD.dtype, device=z_bD.device).reshape(-1, 2)
        drawn = ranges[:, 0] + (ranges[:, 1] - ranges[:, 0]) * torch.special.ndtr(z_bD[:, size:])
        params = torch.where(given.isnan(), drawn, given)
        return self.draw(z_bD[:, :size].unflatten(1, self.shape), params), params

    def mismatch(self, fields_bCYX: Tensor, owners_b: Tensor, noise_bCYX: Tensor | None = None) -> Tensor:
        """Sum of ((field - known) / sigma)^2 over the known points, [b]; noise: added to what is known, in units of
        sigma."""
        seen = self.observation
        apart = (fields_bCYX - seen.values_NCYX[owners_b]) / seen.sigma_NC[owners_b, :, None, None]
        apart = apart if noise_bCYX is None else apart - noise_bCYX
        return torch.where(seen.known_NCYX[owners_b], apart, 0.0).square().flatten(1).sum(dim=1)

    def squares(self, fields_bCYX: Tensor, params_bP: Tensor) -> dict[str, Tensor]:
        """Squared relative residuals [b] by term."""
        return residual_squares(self.pde, self.grid, fields_bCYX, params_bP)

    def energy(self, z_bD: Tensor, owners_b: Tensor, centre_bD: Tensor | None, noise_bCYX: Tensor | None) -> Tensor:
        """The energy above, [b], about another centre of the prior than 0 where there is one."""
        fields, params = self.made(z_bD, owners_b)
        total = 0.5 * self.mismatch(fields, owners_b, noise_bCYX)
        if self.physics > 0:
            seen = self.observation
            held = torch.where(seen.whole_NC[owners_b, :, None, None], seen.values_NCYX[owners_b], fields)
            squares = self.squares(held, params)
            weight = 0.5 * self.physics * math.prod(self.shape)
            total = total + weight * torch.stack([squares[k] / self.scales[k] for k in NORMS]).sum(dim=0)
        away, size = z_bD if centre_bD is None else z_bD - centre_bD, math.prod(self.shape)
        return total + 0.5 * (self.prior * away[:, :size].square().sum(dim=1) + away[:, size:].square().sum(dim=1))


def posed(generator: OneCall, observation: Observation, params: Mapping[str, Any] | None, physics: float) -> Posed:
    """The task of a student. Raises UserError for a parameter that is none, or out of its range."""
    given = known_params(generator.pde, len(observation), params).to(generator.device)
    scales = residual_scales(generator) if physics > 0 else {}
    return Posed(
        generator.pde,
        generator.grid,
        generator.differentiable,
        observation.on(generator.device),
        given,
        scales,
        physics,
    )


def known_params(pde: Pde, count: int, params: Mapping[str, Any] | None) -> Tensor:
    """Parameters of `count` observations as a user gives them, float32 [N, P]; NaN where he does not."""
    return chosen(pde, torch.full((count, len(pde.varying)), math.nan, dtype=torch.float64), params).float()


def normals(task: Posed, seed: int, stream: str, counters: Tensor) -> Tensor:
    """Standard normal vectors [b, D] of these counters: noise of a field, then a number for each parameter."""
    device = task.params_NP.device
    parts = [seeds.normal(seed, stream, counters, task.shape, device=device).flatten(1)]
    if task.pde.varying:
        parts.append(
            seeds.normal(seed, f"{stream}/params", counters, (1, 1, len(task.pde.varying)), device=device).flatten(1)
        )
    return torch.cat(parts, dim=1)


def searched(
    task: Posed,
    per: int,
    search: Search,
    begin: Callable[[Tensor], tuple[Tensor, Tensor | None, Tensor | None]],
    first_number: int = 0,
) -> tuple[Minimum, Tensor]:
    """The least energies of `per` vectors for each observation, on the CPU, and their owners.

    begin: counters [b] -> where vectors start, centres of their prior and noise of their observations (None: neither).
    first_number: the number of the first observation, from which counters follow.
    """
    owners = torch.arange(len(task.observation)).repeat_interleave(per)
    counters = (owners + first_number) * MOST + torch.arange(per).repeat(len(task.observation))
    parts, device = [], task.params_NP.device
    for first in range(0, len(owners), search.batch):
        some = slice(first, first + search.batch)
        mine = owners[some].to(device)
        start, centre, noise = begin(counters[some])

        def energy(
            z: Tensor, rows: Tensor, mine: Tensor = mine, centre: Tensor | None = centre, noise: Tensor | None = noise
        ) -> tuple[Tensor, Tensor]:
            picked = (None if t is None else t[rows] for t in (centre, noise))
            return task.energy(z, mine[rows], *picked), torch.zeros_like(rows, dtype=torch.bool)

        def tell(done: int, mean: float, first: int = first) -> None:
            chunks = -(-len(owners) // search.batch)
            if search.progress is not None:
                search.progress(
                    first // search.batch * search.steps + done, chunks * search.steps, f"energy {mean:.5g}"
                )

        found = minimise(energy, start, search.steps, search.optimiser, tell)
        parts.append(Minimum(*(t.cpu() for t in (found.x_BD, found.energy_B, found.calls_B))))
    joined = (torch.cat([getattr(p, name) for p in parts]) for name in ("x_BD", "energy_B", "calls_B"))
    found = Minimum(*joined)
    lost = ~found.energy_B.isfinite().reshape(-1, per).any(dim=1)
    if lost.any():
        number = int(lost.nonzero()[0])
        raise UserError(f"values: field {number} is too far from what the student makes; check its units and sigma")
    return found, owners


@torch.no_grad()
def measured(
    task: Posed, z_BD: Tensor, owners_B: Tensor, batch: int
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Of vectors: fields [B, C, Y, X], parameters [B, P], mismatches [B] and residuals [B] by term, all on the CPU."""
    device, parts = task.params_NP.device, []
    for z, owners in zip(z_BD.split(batch), owners_B.split(batch), strict=True):
        owners = owners.to(device)
        fields, params = task.made(z.to(device), owners)
        points = task.observation.known_NCYX[owners].flatten(1).sum(dim=1)
        apart = (task.mismatch(fields, owners) / points).sqrt()
        squares = task.squares(fields, params)
        parts.append([t.cpu() for t in (fields, params, apart, *(squares[k].sqrt() for k in NORMS))])
    fields, params, apart, *residuals = (torch.cat(values) for values in zip(*parts, strict=True))
    return fields, params, apart, dict(zip(NORMS, residuals, strict=True))


def answered(task: Posed, found: Minimum, owners_B: Tensor, batch: int) -> Answer:
    """The least energy of each observation as an answer."""
    energy = found.energy_B.reshape(len(task.observation), -1)
    best = energy.nan_to_num(nan=math.inf).argmin(dim=1) + torch.arange(len(energy)) * energy.shape[1]
    z = found.x_BD[best]
    fields, params, apart, residual = measured(task, z, owners_B[best], batch)
    named = {channel.name: fields[:, c] for c, channel in enumerate(task.pde.channels)}
    named |= dict(zip(task.pde.varying, params.T, strict=True))
    eps = z[:, : math.prod(task.shape)].unflatten(1, task.shape)
    calls = found.calls_B.reshape(energy.shape).sum(dim=1)
    return Answer(named, apart, residual, found.energy_B[best], eps, calls)


def solve_task(
    generator: OneCall,
    observation: Observation,
    params: Mapping[str, Any] | None,
    search: Search,
    first_number: int = 0,
) -> Answer:
    """Find the likeliest field of each observation.

    Args:
        generator: The student.
        observation: What is known.
        params: Varying parameters that are known, by name, as in `sample`.
        search: How the least energy is looked for.
        first_number: The number of the first observation; the draws that a search begins at follow from it.

    Returns:
        One answer for each observation.

    Raises:
        UserError: For a parameter that is none or out of its range, or values too far from what the student makes.
    """
    task = posed(generator, observation, params, search.physics)
    found, owners = searched(
        task,
        search.starts,
        search,
        lambda counters: (normals(task, search.seed, "task", counters), None, None),
        first_number,
    )
    return answered(task, found, owners, search.batch)
