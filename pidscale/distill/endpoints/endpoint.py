"""An endpoint: the field that the teacher's solver reaches from the noise of one counter. Knows no ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Endpoints:
    """Endpoints made by a teacher.

    Attributes:
        counters: Counters of the endpoints, int64 [B].
        params_BP: Parameters that vary from sample to sample, on the CPU.
        fields_BCYX: Fields in units of the model.
        checksums: Checksums of the noise, int64 [B], to detect an endpoint that is paired with the wrong noise.
    """

    counters: Tensor
    params_BP: Tensor
    fields_BCYX: Tensor
    checksums: Tensor


def checksum(eps_BCYX: Tensor) -> Tensor:
    """Return a checksum of the bits of each sample's noise, int64 [B]; it is the same on every device."""
    return eps_BCYX.contiguous().view(torch.int32).flatten(1).sum(dim=1, dtype=torch.int64)
