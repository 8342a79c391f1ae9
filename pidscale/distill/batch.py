"""What a distillation learns from at a step: noise and parameters of its samples, and the teacher's endpoints.

An endpoint is a counter, its parameters, the field that the teacher's solver reaches from that counter's noise, and a
checksum of the noise. Knows no ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Endpoints:
    """What a teacher made: counters int64 [B], parameters [B, P], fields in the units of the model [B, C, Y, X], checksums of
    their noise."""

    counters: Tensor
    params_BP: Tensor
    fields_BCYX: Tensor
    checksums: Tensor


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


def checksum(eps_BCYX: Tensor) -> Tensor:
    """A sum over the bits of each sample's noise, int64 [B], the same on every device."""
    return eps_BCYX.contiguous().view(torch.int32).flatten(1).sum(dim=1, dtype=torch.int64)
