"""How a global batch is cut into micro-steps, and the learning rate of a step. Knows no models and no equations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.config import TrainSettings
from pidscale.parallel.mesh import Mesh


@dataclass(frozen=True)
class MicroPlan:
    """This rank's share of a global batch in equal micro-steps, the same number on every rank.

    indices: [accumulation, micro] positions in this rank's share. weights: 1, or 0 where a short share is filled up.
    """

    accumulation: int
    micro: int
    indices: Tensor
    weights: Tensor


def micro_plan(global_batch: int, most: int, mesh: Mesh) -> MicroPlan:
    """Cut `global_batch` samples over the space groups into micro-steps of at most `most` samples."""
    largest = -(-global_batch // mesh.data)
    accumulation = -(-largest // most)
    micro = -(-largest // accumulation)
    mine = mesh.slice(global_batch)
    count = mine.stop - mine.start
    places = torch.arange(accumulation * micro)
    weights = (places < count).float()
    shape = (accumulation, micro)
    return MicroPlan(
        accumulation,
        micro,
        places.clamp_max(count - 1).reshape(shape).to(mesh.device),
        weights.reshape(shape).to(mesh.device),
    )


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Linear warm-up, then half a cosine down to zero: a pure function of the step."""
    ramp = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    return settings.lr * ramp * 0.5 * (1.0 + math.cos(math.pi * step / settings.steps))
