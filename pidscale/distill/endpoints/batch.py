"""Batches of a distillation: noise and parameters of the samples of a step, and the teacher's endpoints.

Knows no ranks and no students.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.config import DistillSettings, Settings
from pidscale.distill.endpoints.buffer import EndpointBuffer
from pidscale.distill.endpoints.endpoint import Endpoints, checksum
from pidscale.distill.endpoints.rollout import Rollout
from pidscale.distill.endpoints.stored import open_set
from pidscale.distill.endpoints.supply import Ahead, Inline, Supply
from pidscale.pde.parameters import condition


@dataclass(frozen=True)
class Batch:
    """This rank's samples of the global batch of a step.

    Attributes:
        step: Number of the step, from 0.
        fresh: Counters [B] that are unique to this step, for further random draws; the noise of a sample may be reused.
        eps_BCYX: Standard normal noise.
        params_BP: Parameters of the samples, on the CPU.
        condition_BP: The same parameters, scaled as conditions of the networks.
        target_BCYX: Endpoints of the noise; None if the objective uses none.
    """

    step: int
    fresh: Tensor
    eps_BCYX: Tensor
    params_BP: Tensor
    condition_BP: Tensor
    target_BCYX: Tensor | None = None

    def part(self, index: Tensor) -> Batch:
        """Return the samples selected by an index tensor."""
        target = None if self.target_BCYX is None else self.target_BCYX[index]
        return Batch(
            self.step,
            self.fresh[index.to(self.fresh.device)],
            self.eps_BCYX[index],
            self.params_BP[index.to(self.params_BP.device)],
            self.condition_BP[index],
            target,
        )


def open_supply(settings: Settings, rollout: Rollout) -> Supply:
    """Return the endpoint supply for `distill.source`. Source `actors` is handled by the caller.

    Raises a UserError if a set of endpoints does not fit the run.

    Args:
        settings: Settings of the run.
        rollout: Teacher and solver that make endpoints.

    Returns:
        The supply.
    """
    d = settings.distill
    if d.source == "shards":
        return Ahead(open_set(settings, rollout, settings.data).endpoints, d.ahead, rollout.teacher.device)
    if d.source == "thread":
        return Ahead(rollout.endpoints, d.ahead, rollout.teacher.device)
    return Inline(rollout.endpoints)


@dataclass(frozen=True)
class Batches:
    """The batches of a distillation, restricted to this rank's positions in the global batch.

    Attributes:
        rollout: Computes noise, parameters and endpoints from counters.
        buffer: Buffer of the endpoints in use.
        supply: Supply that the buffer takes endpoints from.
        endpoints: Whether batches contain endpoints; otherwise every step has new noise.
    """

    rollout: Rollout
    buffer: EndpointBuffer
    supply: Supply
    endpoints: bool

    def start(self, first: int, last: int) -> None:
        """Announce the coming steps, so that their endpoints can be made in advance."""
        if self.endpoints:
            self.supply.start(self.buffer.wanted(first, last))

    def at(self, step: int, part: Callable[[str], AbstractContextManager[None]]) -> Batch:
        """Return the batch of a step.

        Args:
            step: Number of the step, from 0.
            part: Context manager that times a part: `wait` for endpoints, `data` for noise and parameters.

        Returns:
            The batch.

        Raises:
            RuntimeError: When an endpoint was made from other noise.
        """
        fresh = self.buffer.counters(0, 0) + step * self.buffer.batch
        if not self.endpoints:
            with part("data"):
                return self._batch(step, fresh, self.rollout.eps(fresh), self.rollout.params(fresh), None)
        with part("wait"):
            found = self.buffer.take(step)
        with part("data"):
            eps = self.rollout.eps(found.counters)
            if not torch.equal(checksum(eps).cpu(), found.checksums.cpu()):
                raise RuntimeError(f"step {step}: noise and endpoint do not belong together")
            return self._batch(step, fresh, eps, found.params_BP, found.fields_BCYX)

    def _batch(self, step: int, fresh: Tensor, eps: Tensor, params: Tensor, target: Tensor | None) -> Batch:
        own = condition(self.rollout.teacher.pde, params).to(eps.device)
        return Batch(step, fresh, eps, params, own, target)

    def scaling(self, rows: int, settings: DistillSettings) -> list[Endpoints]:
        """Return teacher samples for measuring the residual scales.

        The samples use Heun's method with `scale_steps` steps. If the training endpoints use the same solver and number of
        steps, the first rows of the buffer are reused.

        Args:
            rows: Number of global batches.
            settings: Settings of the section `distill`.

        Returns:
            This rank's share of each global batch.
        """
        d = settings
        if self.endpoints and (d.solver, d.solver_steps) == ("heun", d.scale_steps) and rows <= d.buffer_rows:
            return [self.buffer.row(slot, 0) for slot in range(rows)]
        scaled = self.rollout.by("heun", d.scale_steps, "distill/scale")
        return [scaled.endpoints(self.buffer.counters(row, 0)) for row in range(rows)]
