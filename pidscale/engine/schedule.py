"""How a global batch is divided into micro-steps, and the learning rate of a step. Knows no models and no equations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.config import TrainSettings
from pidscale.parallel.mesh import Mesh


@dataclass(frozen=True)
class MicroPlan:
    """This rank's share of a global batch in micro-steps; their number and size are the same on every rank.

    Attributes:
        accumulation: The number of micro-steps.
        micro: The number of samples in a micro-step.
        indices: The positions of the samples in this rank's share, int64 [accumulation, micro].
        weights: 1 for each sample of the share, 0 for those that fill up a short share, [accumulation, micro].
    """

    accumulation: int
    micro: int
    indices: Tensor
    weights: Tensor


def micro_plan(global_batch: int, most: int, mesh: Mesh) -> MicroPlan:
    """Divide the samples of a global batch over the space groups and into micro-steps.

    Args:
        global_batch: The number of samples of a step on all ranks.
        most: The largest number of samples of a micro-step.
        mesh: The mesh of ranks.

    Returns:
        The plan of this rank.
    """
    largest = -(-global_batch // mesh.data)
    accumulation = -(-largest // most)
    micro = -(-largest // accumulation)
    share = mesh.slice(global_batch)
    count = share.stop - share.start
    positions = torch.arange(accumulation * micro)
    weights = (positions < count).float()
    shape = (accumulation, micro)
    return MicroPlan(
        accumulation,
        micro,
        positions.clamp_max(count - 1).reshape(shape).to(mesh.device),
        weights.reshape(shape).to(mesh.device),
    )


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Return the learning rate of a step, counted from 0: a linear warm-up times half a cosine that falls to zero.

    Args:
        settings: The peak rate `lr`, the number of steps and those of the warm-up.
        step: The step, counted from 0.

    Returns:
        The learning rate.
    """
    ramp = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    return settings.lr * ramp * 0.5 * (1.0 + math.cos(math.pi * step / settings.steps))
