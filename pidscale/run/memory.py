"""The memory that a worker needs, counted before the run starts, and the settings that would need less.

Activations are measured, not estimated: the network itself runs forward and backward over tensors that have shapes but no
storage. Knows no Ray and sends no messages: one process can plan for the workers of any cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pidscale.config import Settings, TrainSettings
from pidscale.engine.schedule import micro_plan
from pidscale.engine.zero_config import state_bytes
from pidscale.models import row_unit
from pidscale.parallel.mesh import Mesh
from pidscale.parallel.split import Cut
from pidscale.precision import FLOAT32_BYTES
from pidscale.run.activations import activation_bytes

PASSES = {"piddm": 1, "pid": 3, "dm": 1}  # of a sample through the student that one micro-step keeps, by objective


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the worker with most rows.

    weights, gradients, optimiser, ema: of each of the `networks` in training. activations: of one
    micro-step of `micro_batch` samples on a tile of (rows, columns) points; students take turns. sampling: what samples for
    scores and pictures need instead. frozen: a frozen teacher; endpoints: its ring. advice: what would make it less.
    """

    weights: int
    gradients: int
    optimiser: int
    ema: int
    activations: int
    sampling: int = 0
    frozen: int = 0
    endpoints: int = 0
    networks: int = 1
    micro_batch: int = 1
    tile: tuple[int, int] = (0, 0)
    advice: str = ""

    @property
    def total(self) -> int:
        """All of it at its worst moment."""
        state = self.networks * (self.weights + self.gradients + self.optimiser + self.ema)
        return state + self.frozen + self.endpoints + max(self.activations, self.sampling)


def memory_plan(
    settings: Settings, description: Mapping[str, Any], shape: tuple[int, int], phase: str, parameters: int
) -> MemoryPlan:
    """What the worker with most rows needs in a phase, `teacher` or `distill`. ValueError where the grid does not fit."""
    model, cluster, distils = settings.model, settings.cluster, phase == "distill"
    loop: TrainSettings = getattr(settings, phase)
    data = cluster.workers // cluster.space
    micro = micro_plan(loop.global_batch, loop.micro_batch, Mesh(0, data)).micro
    rows = max(Cut.even(shape[0], cluster.space, row_unit(description)).sizes)
    networks = 2 ** (settings.distill.twin + (settings.distill.objective == "dm")) if distils else 1  # critics too
    sampled = (
        settings.distill.chunk if distils else min(loop.micro_batch, -(-settings.teacher.evaluate_samples // data))
    )
    field = FLOAT32_BYTES * description["channels"] * rows * shape[1]
    weights, gradients, optimiser = state_bytes(parameters, cluster.workers, cluster.zero_stage)
    passes = PASSES[settings.distill.objective] if distils else 1
    steps = activation_bytes(description, shape, passes * micro, rows, model.recompute, model.precision)
    forward = activation_bytes(description, shape, sampled, rows, False, model.precision, trains=False)
    sampling = forward + networks * FLOAT32_BYTES * parameters  # from plain copies with averaged weights
    return MemoryPlan(
        weights,
        gradients,
        optimiser,
        ema=-(-FLOAT32_BYTES * parameters // cluster.workers),
        activations=steps,
        sampling=sampling,
        frozen=FLOAT32_BYTES * parameters if distils else 0,
        endpoints=settings.distill.ring * -(-loop.global_batch // data) * field if distils else 0,
        networks=networks,
        micro_batch=micro,
        tile=(rows, shape[1]),
        advice=advice(settings, phase, steps >= sampling, sampling > steps),
    )


def advice(settings: Settings, phase: str, steps: bool = True, samples: bool = True) -> str:
    """List the settings that would make a phase need less memory.

    Args:
        settings: Settings of the run.
        phase: `teacher` or `distill`.
        steps: Whether the steps of training need the memory.
        samples: Whether sampling needs it.

    Returns:
        The end of a sentence, from "try".
    """
    micro = getattr(settings, phase).micro_batch
    cluster = settings.cluster
    ways = []
    if (steps or phase == "teacher") and micro > 1:
        ways += [f"{phase}.micro_batch below {micro}"]
    if steps and not settings.model.recompute:
        ways += ["model.recompute=true"]
    if samples and phase == "distill" and settings.distill.chunk > 1:
        ways += [f"distill.chunk below {settings.distill.chunk}"]
    ways += [f"cluster.zero_stage={cluster.zero_stage + 1}"] if cluster.zero_stage < 3 and cluster.workers > 1 else []
    return f"try {''.join(way + ', ' for way in ways)}or cluster.space above {cluster.space}".replace("try or", "try")
