"""What a distillation learns from at a step: noise and parameters of its samples, and the teacher's endpoints.

An endpoint is a counter, its parameters, the field that the teacher's solver reaches from that counter's noise, and a
checksum of the noise. Knows no ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.config import DistillSettings, Settings
from pidscale.distill.endpoints.buffer import Ring
from pidscale.distill.endpoints.endpoint import checksum
from pidscale.distill.endpoints.rollout import Rollout
from pidscale.distill.endpoints.stored import open_set
from pidscale.distill.endpoints.supply import Ahead, Inline, Supply
from pidscale.pde.parameters import condition


@dataclass(frozen=True)
class Batch:
    """This rank's samples of the global batch of a step.

    fresh: counters that no other step has, for draws beside the noise, which may come again. condition_BP: what networks are
    told of the parameters. target_BCYX: endpoints, where an objective takes them.
    """

    step: int
    fresh: Tensor
    eps_BCYX: Tensor
    params_BP: Tensor
    condition_BP: Tensor
    target_BCYX: Tensor | None = None

    def part(self, index: Tensor) -> Batch:
        """Those of its samples that an index names."""
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
    """Where endpoints come from, but for actors, which only who started them knows. UserError for a set that does not fit."""
    d = settings.distill
    if d.source == "shards":
        return Ahead(open_set(settings, rollout, settings.data).endpoints, d.ahead, rollout.teacher.device)
    if d.source == "ring":
        return Ahead(rollout.endpoints, d.ahead, rollout.teacher.device)
    return Inline(rollout.endpoints)


@dataclass(frozen=True)
class Batches:
    """Of the positions of a global batch that this rank's ring has. pairs: with endpoints; else every step has new noise."""

    rollout: Rollout
    ring: Ring
    supply: Supply
    pairs: bool

    def start(self, first: int, last: int) -> None:
        """Say which steps will come, so that their endpoints may be made before."""
        if self.pairs:
            self.supply.start(self.ring.wanted(first, last))

    def at(self, step: int, part: Callable[[str], AbstractContextManager[None]]) -> Batch:
        """The batch of a step; `part` times its parts, `teacher` that of waiting for endpoints.

        Raises RuntimeError where noise and endpoint do not belong together.
        """
        rollout, ring, target = self.rollout, self.ring, None
        fresh = ring.counters(0, 0) + step * ring.batch
        if self.pairs:
            with part("teacher"):
                endpoints = ring.take(step)
            counters, target = endpoints.counters, endpoints.fields_BCYX
        else:
            counters = fresh
        with part("data"):
            eps, params = rollout.eps(counters), rollout.params(counters)
            if self.pairs and not torch.equal(checksum(eps).cpu(), endpoints.checksums.cpu()):
                raise RuntimeError(f"step {step}: noise and endpoint do not belong together")
            told = condition(rollout.teacher.pde, params).to(eps.device)
            return Batch(step, fresh, eps, params, told, target)

    def scaling(self, rows: int, settings: DistillSettings) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Fields and parameters of the teacher's own samples as the residual's scale wants them, `rows` global batches.

        Where the endpoints to train on are made as the scale wants them, the ring's first rows are taken, and kept.
        """
        rollout, d = self.rollout, settings
        if self.pairs and (d.solver, d.solver_steps) == ("heun", d.scale_steps) and rows <= d.ring:
            found = [self.ring.row(slot, 0) for slot in range(rows)]
        else:
            scaled = rollout.by("heun", d.scale_steps, "distill/scale")
            found = [scaled.endpoints(self.ring.counters(row, 0)) for row in range(rows)]
        return [(one.fields_BCYX, one.params_BP) for one in found]
