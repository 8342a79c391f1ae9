"""Memory that a worker needs, computed before the run starts, and settings that would reduce it.

Activations are measured, not estimated: the network itself runs forward and backward over tensors that have shapes but no
storage, and the solver steps of a head run on one sample. Knows no Ray and sends no messages: one process can plan for the
workers of any cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pidscale.config import DistillSettings, Settings
from pidscale.engine.schedule import micro_plan
from pidscale.engine.zero_config import buffer_bytes, state_bytes, update_bytes
from pidscale.models import row_unit
from pidscale.parallel.mesh import Mesh
from pidscale.parallel.split import Cut
from pidscale.pde import build_pde
from pidscale.precision import FLOAT32_BYTES
from pidscale.run.activations import activation_bytes, head_bytes

PROCESS = 2**29  # bytes that a worker takes before it has a network
_CHECKPOINT = 4 * FLOAT32_BYTES  # of a parameter: its weight, two moments of Adam, and its average


@dataclass(frozen=True)
class MemoryPlan:
    """Memory in bytes on the worker with the most rows.

    Attributes:
        weights: Weights of each network in training.
        gradients: Gradients of each network in training.
        optimiser: Optimiser state of each network in training.
        ema: Averaged weights of each network in training.
        activations: Activations of one micro-step of `micro_batch` samples on a tile. Students take turns.
        sampling: Memory for sampling, used for metrics and pictures when no activations are held.
        frozen: Weights of the frozen teacher.
        averaged: Weights of further networks that are not trained: averaged targets, teachers of later rounds.
        endpoints: Buffer of endpoints.
        bucket: Gradients of each network in training that are reduced together.
        gathered: Weights that ZeRO stage 3 gathers for a step. Networks take turns.
        update: Temporary tensors of the optimiser's step, when no activations are held and nothing is gathered.
        checkpoint: Copy of each trained network's part of a checkpoint; 0 on a GPU, since it is in the host's memory.
        head: What the solver steps behind the student hold for their backward pass, in one micro-step.
        apart: Gradients of two losses, where they are combined without conflict. Students take turns.
        process: What a worker takes before it has a network: Python, torch, DeepSpeed and Ray, on a GPU the context of CUDA.
        networks: Number of networks in training.
        micro_batch: Number of samples in a micro-step.
        tile: Number of rows and columns of a field that the worker holds.
        advice: Settings that would reduce the memory.
    """

    weights: int
    gradients: int
    optimiser: int
    ema: int
    activations: int
    sampling: int = 0
    frozen: int = 0
    averaged: int = 0
    endpoints: int = 0
    bucket: int = 0
    gathered: int = 0
    update: int = 0
    checkpoint: int = 0
    head: int = 0
    apart: int = 0
    process: int = 0
    networks: int = 1
    micro_batch: int = 1
    tile: tuple[int, int] = (0, 0)
    advice: str = ""

    @property
    def total(self) -> int:
        """Peak memory in bytes."""
        each = self.weights + self.gradients + self.optimiser + self.ema + self.bucket + self.checkpoint
        besides = self.frozen + self.averaged + self.endpoints + self.apart + self.process
        return (
            self.networks * each
            + besides
            + max(self.gathered + self.activations + self.head, self.update, self.sampling)
        )


def memory_plan(
    settings: Settings, description: Mapping[str, Any], shape: tuple[int, int], phase: str, parameters: int
) -> MemoryPlan:
    """Return the memory that the worker with the most rows needs in a phase.

    Raises a ValueError if the grid does not fit the network.

    Args:
        settings: Settings of the run.
        description: Description of the network, as `architecture` returns it.
        shape: Rows and columns of the whole field.
        phase: `teacher` or `distill`.
        parameters: Number of parameters of the network.

    Returns:
        The plan.
    """
    model, cluster, d = settings.model, settings.cluster, settings.distill
    distils = phase == "distill"
    loop = d if distils else settings.teacher
    data = cluster.workers // cluster.space
    micro = micro_plan(loop.global_batch, loop.micro_batch, Mesh(0, data)).micro
    rows = max(Cut.even(shape[0], cluster.space, row_unit(description)).sizes)
    networks, averaged = _networks(d) if distils else (1, 0)
    sampled = d.chunk if distils else min(loop.micro_batch, -(-settings.teacher.evaluate_samples // data))
    field = FLOAT32_BYTES * description["channels"] * rows * shape[1]
    held = d.buffer_rows * -(-loop.global_batch // data) if distils and d.takes_endpoints else 0
    weights, gradients, optimiser = state_bytes(parameters, cluster.workers, cluster.zero_stage)
    bucket, gathered = buffer_bytes(parameters, cluster.zero_stage, cluster.deepspeed)
    passes = loop.needs.passes(loop.own)
    combined = d.combine == "conflict_free" if distils else settings.teacher.needs.conflict_free(settings.teacher.own)
    counted = partial(activation_bytes, description, shape, precision=model.precision, cuda=cluster.use_gpu)
    steps = counted(passes * micro, rows, model.recompute)
    forward = counted(sampled, rows, trains=False)
    head, corrected = _head(settings, shape, rows) if distils else (0, 0)
    training = steps + micro * head
    copies = networks * FLOAT32_BYTES * parameters  # unpartitioned, with averaged weights, from which samples are taken
    sampling = max(forward, sampled * corrected) + copies
    return MemoryPlan(
        weights,
        gradients,
        optimiser,
        ema=-(-FLOAT32_BYTES * parameters // cluster.workers),
        activations=steps,
        sampling=sampling,
        frozen=FLOAT32_BYTES * parameters if distils else 0,
        averaged=averaged * FLOAT32_BYTES * parameters,
        endpoints=held * field,
        bucket=bucket,
        gathered=gathered,
        apart=2 * FLOAT32_BYTES * parameters if combined else 0,
        update=update_bytes(parameters, cluster.workers, cluster.zero_stage),
        process=PROCESS,
        head=micro * head,  # behind the sample whose residual is taken, however many passes there are
        checkpoint=0 if cluster.use_gpu else -(-_CHECKPOINT * parameters // cluster.workers),
        networks=networks,
        micro_batch=micro,
        tile=(rows, shape[1]),
        advice=advice(settings, phase, training >= sampling, sampling > training),
    )


def _head(settings: Settings, shape: tuple[int, int], rows: int) -> tuple[int, int]:
    """Return the bytes that the steps of the head hold for each sample on a tile: in training, and in sampling."""
    steps = settings.distill.trained_head
    if steps == 0:
        return 0, 0
    pde = build_pde(settings.pde.name, settings.pde.params)
    whole = [head_bytes(pde, pde.grid(max(shape)), steps, trains) for trains in (True, False)]
    training, sampling = (-(-each * rows // shape[0]) for each in whole)
    return training, sampling


def _networks(d: DistillSettings) -> tuple[int, int]:
    """Return the numbers of trained networks and of further networks that are not trained, over all students."""
    students = 2 if d.control else 1
    rates = [partner.rate for partner in d.needs.partners(d.own)]
    averaged = sum(rate is not None for rate in rates)
    later = 1 if len(d.needs.rounds(d.own)) > 1 else 0  # each student has its own teacher in later rounds
    return students * (1 + len(rates) - averaged), students * (averaged + later)


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
    if steps and phase == "distill" and settings.distill.trained_head:
        ways += [f"distill.head below {settings.distill.head}"]
    if samples and phase == "distill" and settings.distill.chunk > 1:
        ways += [f"distill.chunk below {settings.distill.chunk}"]
    ways += [f"cluster.zero_stage={cluster.zero_stage + 1}"] if cluster.zero_stage < 3 and cluster.workers > 1 else []
    return f"try {''.join(way + ', ' for way in ways)}or cluster.space above {cluster.space}".replace("try or", "try")
