"""An endpoint: a counter, its parameters, the field that the teacher's solver reaches from that counter's noise, and a
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


def checksum(eps_BCYX: Tensor) -> Tensor:
    """A sum over the bits of each sample's noise, int64 [B], the same on every device."""
    return eps_BCYX.contiguous().view(torch.int32).flatten(1).sum(dim=1, dtype=torch.int64)
