"""An endpoint: the field that the teacher's solver reaches from the noise of one counter. Knows no ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Endpoints:
    """What a teacher made.

    Attributes:
        counters: Which endpoints, int64 [B].
        params_BP: Parameters that vary from sample to sample, on the CPU.
        fields_BCYX: Fields in units of the model.
        checksums: Of their noise, int64 [B]: noise and endpoint that do not belong together are found.
    """

    counters: Tensor
    params_BP: Tensor
    fields_BCYX: Tensor
    checksums: Tensor


def checksum(eps_BCYX: Tensor) -> Tensor:
    """Return the sum over the bits of each sample's noise, int64 [B], the same on every device."""
    return eps_BCYX.contiguous().view(torch.int32).flatten(1).sum(dim=1, dtype=torch.int64)
