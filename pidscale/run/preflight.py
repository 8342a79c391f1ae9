"""Checks before a run starts, and messages about the memory that it needs or ran out of. Knows no ranks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pidscale.config import ClusterSettings, Settings, UserError
from pidscale.engine.zero_config import deepspeed_dict, state_bytes
from pidscale.models import architecture, row_unit, without_bytes
from pidscale.plain import size_text, size_texts
from pidscale.run.host_limits import is_out_of_memory
from pidscale.run.memory import MemoryPlan, advice


def model_description(settings: Settings, channels: int, conditions: int = 0) -> dict[str, Any]:
    """Return the full description of the network of a run.

    Args:
        settings: Settings of the run.
        channels: Number of channels of a field.
        conditions: Number of varying parameters of a sample.

    Returns:
        The description, as a card stores it.

    Raises:
        UserError: When a setting of the network is wrong; the error names its key.
    """
    model = settings.model
    try:
        described = architecture(model.kind, model.size, channels, conditions, **model.change)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from None
    return described | ({"prediction": "velocity"} if settings.teacher.noise == "flow" else {})


def check_model(settings: Settings, description: Mapping[str, Any], shape: tuple[int, int]) -> int:
    """Check that the network can be built, takes fields of this shape and works with the settings of DeepSpeed.

    Args:
        settings: Settings of the run.
        description: Description of the network.
        shape: Rows and columns of the fields.

    Returns:
        The number of parameters, counted without allocating them.

    Raises:
        UserError: When network, shape or DeepSpeed's settings do not fit; the error names the key.
    """
    try:
        model = without_bytes(description)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"model.change={settings.model.change}: {str(error).splitlines()[0]}") from None
    multiple = row_unit(description)
    if any(points % multiple for points in shape):
        raise UserError(
            f"pde.points: {shape[0]} x {shape[1]} points, this {description['kind']} needs multiples of {multiple}; "
            "change pde.points, or take model=fno_tiny for any number"
        )
    asked = deepspeed_dict(settings.cluster.zero_stage, 1, 1, 0.0, settings.cluster.deepspeed)
    if settings.cluster.deepspeed:
        _check_zero_section(asked["zero_optimization"])
    return sum(p.numel() for p in model.parameters())


def _check_zero_section(section: Mapping[str, Any]) -> None:
    """Let DeepSpeed check its ZeRO settings before any worker starts. Raises UserError that names the key."""
    from pydantic import ValidationError

    chosen = os.environ.get("DS_ACCELERATOR")
    os.environ["DS_ACCELERATOR"] = "cpu"  # the driver computes nothing, so DeepSpeed need not look for a GPU
    try:
        from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

        DeepSpeedZeroConfig(**section)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"cluster.deepspeed.zero_optimization.{key}: {first['msg']}; see DeepSpeed's ZeRO options"
        ) from None
    finally:
        del os.environ["DS_ACCELERATOR"]
        if chosen is not None:
            os.environ["DS_ACCELERATOR"] = chosen


def plan_text(description: Mapping[str, Any], cluster: ClusterSettings, parameters: int) -> str:
    """Return the size of a network as one paragraph.

    Args:
        description: Description of the network.
        cluster: Settings of the cluster.
        parameters: Number of parameters.

    Returns:
        Parameters, and bytes of weights, gradients and optimiser on one rank for each ZeRO stage.
    """
    stages = {stage: sum(state_bytes(parameters, cluster.workers, stage)) for stage in range(4)}
    sizes = ", ".join(f"stage {stage} {size_text(count)}" for stage, count in stages.items())
    holders = f"each of {cluster.workers} workers" if cluster.workers > 1 else "the one worker"
    return (
        f"{description['kind']} of width {description['width']}: {parameters / 1e6:.2f} M parameters; weights, gradients "
        f"and optimiser on {holders}: {sizes}; this run uses stage {cluster.zero_stage}"
    )


def plan_lines(plan: MemoryPlan) -> str:
    """Return a memory plan as one sentence."""
    each = {"weights": plan.weights, "gradients": plan.gradients, "optimiser": plan.optimiser, "average": plan.ema}
    parts = [f"{name} {size_text(plan.networks * count)}" for name, count in each.items()]
    parts[-1] += f" of {plan.networks} networks" if plan.networks > 1 else ""
    besides = {
        "bucket of gradients": plan.networks * plan.bucket,
        "gathered weights": plan.gathered,
        "or the optimiser's step": plan.update,
        "copy for checkpoints": plan.networks * plan.checkpoint,
        "frozen teacher": plan.frozen,
        "its endpoints": plan.endpoints,
        "averaged networks": plan.averaged,
        "gradients of two losses": plan.apart,
        "the process itself": plan.process,
    }
    parts += [f"{name} {size_text(count)}" for name, count in besides.items() if count]
    held = f"a micro-batch of {plan.micro_batch} on {plan.tile[0]} x {plan.tile[1]} points"
    parts += [f"activations {size_text(plan.activations)} for {held}"]
    parts += [f"solver steps behind it {size_text(plan.head)}"] if plan.head else []
    parts += [f"or {size_text(plan.sampling)} to sample"] if plan.sampling > plan.activations + plan.head else []
    return f"memory on each worker: {', '.join(parts)}, in all at least {size_text(plan.total)}"


def precision_remark(settings: Settings) -> str | None:
    """Return a line if a run on GPUs leaves their tensor cores unused, else None."""
    if not settings.cluster.use_gpu or settings.model.precision != "fp32":
        return None
    return "model.precision=fp32 leaves the tensor cores of the GPUs unused; model.precision=bf16 uses them"


def warning(plan: MemoryPlan, limit: int | None) -> str | None:
    """Return a line if a worker needs more memory than its limit in bytes, else None."""
    if limit is None or plan.total <= limit:
        return None
    need, may = size_texts(plan.total, limit)
    return f"warning: each worker needs at least {need} of memory and may use {may}; {plan.advice}"


@contextmanager
def in_our_words(settings: Settings, phase: str) -> Iterator[None]:
    """Turn running out of memory in the body into one line that names the settings which would need less.

    Args:
        settings: Settings of the run.
        phase: `teacher` or `distill`.

    Yields:
        Nothing.

    Raises:
        UserError: When the body runs out of memory.
        Exception: Any other error of the body, unchanged.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise UserError(out_of_memory_line(error, settings, phase)) from error
        raise


def out_of_memory_line(error: BaseException, settings: Settings, phase: str) -> str:
    """Return the message for running out of memory.

    Args:
        error: The error, which may say how much memory the process asked for.
        settings: Settings of the run.
        phase: `teacher` or `distill`.

    Returns:
        One line: how much more the process asked for, and which settings would need less.
    """
    asked = re.search(r"allocate ([\d.]+) (bytes|[KMGT]iB)", str(error))
    unit = {"bytes": 0, "KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4}
    size = f" when it asked for {size_text(float(asked[1]) * 1024 ** unit[asked[2]])} more" if asked else ""
    return f"{phase}: a worker ran out of memory{size}; {advice(settings, phase)}"
