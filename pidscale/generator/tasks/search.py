"""The search for the vectors of least energy of a task, from several starts for each observation.

Knows no networks, no files and no ranks. Shapes: as in energy.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.config import UserError
from pidscale.generator.arguments import Progress, as_amount, as_int
from pidscale.generator.tasks.descend import Minimum, minimise
from pidscale.generator.tasks.energy import PosedTask

MOST = 2**20  # starts, or posterior samples, of one observation: each has its own counter


@dataclass(frozen=True)
class Search:
    """Settings of a search. A value out of range raises a UserError.

    Attributes:
        steps: Largest number of evaluations (a network call and its gradient) for each start.
        starts: Number of draws that the search starts from.
        seed: Seed of the draws.
        batch: Number of vectors searched at once; L-BFGS keeps twenty tensors of their size.
        physics: Weight of the residual.
        optimiser: `lbfgs` or `adam`.
        field_steps: Largest number of evaluations of a second search, over the field itself (field.py); 0 for none.
        field_prior: Weight that holds the second search to the answer of the first.
        field_physics: Weight of the residual in the second search.
        progress: Called after every evaluation; None for no report.
    """

    steps: int = 200
    starts: int = 4
    seed: int = 0
    batch: int = 64
    physics: float = 1.0
    optimiser: str = "lbfgs"
    field_steps: int = 0
    field_prior: float = 0.1
    field_physics: float = 1.0
    progress: Progress | None = None

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("seed", 0), ("batch", 1)):
            as_int(name, getattr(self, name), least)
        as_int("starts", self.starts, 1, MOST)
        as_int("field_steps", self.field_steps, 0)
        for name in ("physics", "field_prior", "field_physics"):
            as_amount(name, getattr(self, name), zero=True)


class Start(NamedTuple):
    """The start of a search of b vectors, and what the energy of each is about.

    Attributes:
        z_bD: Vectors to start from.
        centre_bD: Centres of the prior; None for 0.
        noise_bK: Noise that is added to the known values (`PosedTask.misfit`); None for none.
    """

    z_bD: Tensor
    centre_bD: Tensor | None = None
    noise_bK: Tensor | None = None


def search_from(given: Mapping[str, Any], **defaults: Any) -> Search:
    """Build the settings of a search from keyword arguments.

    Args:
        given: Settings by name.
        **defaults: Defaults that replace those of `Search`.

    Returns:
        The settings.

    Raises:
        UserError: When a name is unknown.
    """
    known = [f.name for f in fields_of(Search)]
    for name in given:
        if name == "head":
            raise UserError("head: no setting of a search; student.with_head(k) answers with k solver steps")
        if name not in known:
            raise UserError(f"{name}: a search has no such setting; it has {', '.join(known)}")
    return Search(**(defaults | dict(given)))


def standard_normals(task: PosedTask, seed: int, stream: str, counters: Tensor) -> Tensor:
    """Draw vectors of standard normal numbers.

    Args:
        task: The task.
        seed: Seed of the random stream.
        stream: Name of the random stream.
        counters: Numbers of the vectors in the stream, [b].

    Returns:
        Vectors [b, D] on the task's device: the noise of a field, then one number for each varying parameter.
    """
    device = task.params_NP.device
    parts = [seeds.normal(seed, stream, counters, task.shape, device=device).flatten(1)]
    if task.pde.varying:
        shape = (1, 1, len(task.pde.varying))
        parts.append(seeds.normal(seed, f"{stream}/params", counters, shape, device=device).flatten(1))
    return torch.cat(parts, dim=1)


def find_minima(
    task: PosedTask, each: int, search: Search, start: Callable[[Tensor], Start], first_number: int = 0
) -> tuple[Minimum, Tensor]:
    """Minimise the energy of `each` vectors for every observation.

    Args:
        task: The task, of N observations.
        each: Number of vectors for each observation.
        search: Settings. `search.starts` is not used.
        start: Returns the start of the vectors with these counters [b].
        first_number: Number of the first observation, which counters follow from.

    Returns:
        The minima of B = N * each vectors on the CPU, and the number of the observation of each vector, [B].

    Raises:
        UserError: When no vector of an observation has a finite energy.
    """
    device = task.params_NP.device
    owners = torch.arange(len(task.observation)).repeat_interleave(each)
    counters = (owners + first_number) * MOST + torch.arange(each).repeat(len(task.observation))
    parts: list[Minimum] = []
    for first in range(0, len(owners), search.batch):
        some = slice(first, first + search.batch)
        found = _search_batch(task, owners[some].to(device), start(counters[some]), search, first, len(owners))
        parts.append(Minimum(found.x_BD.cpu(), found.energy_B.cpu(), found.calls_B.cpu()))
    minima = Minimum(
        torch.cat([part.x_BD for part in parts]),
        torch.cat([part.energy_B for part in parts]),
        torch.cat([part.calls_B for part in parts]),
    )
    lost = ~minima.energy_B.isfinite().reshape(-1, each).any(dim=1)
    if lost.any():
        number = int(lost.nonzero()[0])
        raise UserError(f"values: field {number} is too far from what the student makes; check its units and sigma")
    return minima, owners


def _search_batch(task: PosedTask, owners_b: Tensor, start: Start, search: Search, first: int, total: int) -> Minimum:
    """Minimise the energies of one batch, which begins at vector `first` of `total`."""

    def energy(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        centre, noise = (None if t is None else t[rows] for t in (start.centre_bD, start.noise_bK))
        return task.energy(z, owners_b[rows], centre, noise), torch.zeros_like(rows, dtype=torch.bool)

    def report(done: int, mean: float) -> None:
        if search.progress is not None:
            batches = -(-total // search.batch)
            before = first // search.batch * search.steps
            search.progress(before + done, batches * search.steps, f"energy {mean:.5g}")

    return minimise(energy, start.z_bD, search.steps, search.optimiser, report)
