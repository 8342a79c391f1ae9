"""What a run will need, said before it starts, and what is said where that was not there: parameters and memory.

Knows no ranks: it counts for one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pidscale.config import ClusterSettings, Settings, UserError
from pidscale.engine.zero_config import deepspeed_dict, state_bytes
from pidscale.models import architecture, row_unit, without_bytes
from pidscale.plain import size_text
from pidscale.run.host_limits import is_out_of_memory
from pidscale.run.memory import MemoryPlan, advice


def model_description(settings: Settings, channels: int, conditions: int = 0) -> dict[str, Any]:
    """The network's full description; conditions: parameters of each sample. Raises UserError that names the key."""
    m = settings.model
    try:
        described = architecture(m.kind, m.size, channels, conditions, **m.change)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from None
    return described | ({"prediction": "velocity"} if settings.teacher.noise == "flow" else {})


def check_model(settings: Settings, description: Mapping[str, Any], shape: tuple[int, int]) -> int:
    """Count parameters without allocating them, and check that the grid fits. Raises UserError."""
    try:
        model = without_bytes(description)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"model.change={settings.model.change}: {str(error).splitlines()[0]}") from None
    multiple = row_unit(description)
    if any(points % multiple for points in shape):
        raise UserError(
            f"pde.points: {shape[0]} x {shape[1]} points, this {description['kind']} needs multiples of {multiple}; "
            "model=fno_tiny takes any number"
        )
    asked = deepspeed_dict(settings.cluster.zero_stage, 1, 1, 0.0, settings.cluster.deepspeed)
    if settings.cluster.deepspeed:
        _check_zero_section(asked["zero_optimization"])
    return sum(p.numel() for p in model.parameters())


def _check_zero_section(section: Mapping[str, Any]) -> None:
    """Ask DeepSpeed itself, before any worker starts. Raises UserError with the key."""
    from pydantic import ValidationError

    chosen = os.environ.get("DS_ACCELERATOR")
    os.environ["DS_ACCELERATOR"] = "cpu"  # the driver computes nothing: DeepSpeed need not look for a GPU, nor say so
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
    """One paragraph: parameters, and bytes of weights, gradients and optimiser on one rank for each ZeRO stage."""
    stages = {stage: sum(state_bytes(parameters, cluster.workers, stage)) for stage in range(4)}
    sizes = ", ".join(f"stage {stage} {size_text(count)}" for stage, count in stages.items())
    holders = f"each of {cluster.workers} workers" if cluster.workers > 1 else "the one worker"
    return (
        f"{description['kind']} of width {description['width']}: {parameters / 1e6:.2f} M parameters; weights, gradients "
        f"and optimiser on {holders}: {sizes}; this run uses stage {cluster.zero_stage}"
    )


def plan_lines(plan: MemoryPlan) -> str:
    """The plan as one sentence."""
    each = {"weights": plan.weights, "gradients": plan.gradients, "optimiser": plan.optimiser, "average": plan.ema}
    parts = [f"{name} {size_text(plan.networks * count)}" for name, count in each.items()]
    parts[-1] += f" of {plan.networks} networks" if plan.networks > 1 else ""
    besides = {"frozen teacher": plan.frozen, "its endpoints": plan.endpoints, "averaged networks": plan.averaged}
    parts += [f"{name} {size_text(count)}" for name, count in besides.items() if count]
    held = f"a micro-batch of {plan.micro_batch} on {plan.tile[0]} x {plan.tile[1]} points"
    parts += [f"activations {size_text(plan.activations)} for {held}"]
    parts += [f"or {size_text(plan.sampling)} to sample"] if plan.sampling > plan.activations else []
    return f"memory on each worker: {', '.join(parts)}, in all at least {size_text(plan.total)}"


def warning(plan: MemoryPlan, limit: int | None) -> str | None:
    """One line where the plan is more than a worker may use, else None."""
    if limit is None or plan.total <= limit:
        return None
    need, may = size_text(plan.total), size_text(limit)
    return f"warning: each worker needs at least {need} of memory and may use {may}; {plan.advice}"


@contextmanager
def in_our_words(settings: Settings, phase: str) -> Iterator[None]:
    """Memory that is not there, in the body, becomes one line that says what would need less."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise UserError(out_of_memory_line(error, settings, phase)) from error
        raise


def out_of_memory_line(error: BaseException, settings: Settings, phase: str) -> str:
    """Our own line for it: what was asked for, and which settings would ask for less."""
    asked = re.search(r"allocate ([\d.]+) (bytes|[KMGT]iB)", str(error))
    unit = {"bytes": 0, "KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4}
    size = f" when it asked for {size_text(float(asked[1]) * 1024 ** unit[asked[2]])} more" if asked else ""
    return f"{phase}: a worker ran out of memory{size}; {advice(settings, phase)}"
