"""What a run will need, said before it starts: parameters and memory of the model for each ZeRO stage.

Knows no ranks: it counts for one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from pidscale.config import ClusterSettings, Settings, UserError
from pidscale.engine.zero_config import deepspeed_dict, state_bytes
from pidscale.models import architecture, build_denoiser


def model_description(settings: Settings, channels: int, conditions: int = 0) -> dict[str, Any]:
    """The network's full description; conditions: parameters of each sample. Raises UserError that names the key."""
    try:
        return architecture(settings.model.kind, settings.model.size, channels, conditions, **settings.model.change)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from None


def check_model(settings: Settings, description: Mapping[str, Any], shape: tuple[int, int]) -> int:
    """Count parameters without allocating them, and check that the grid fits. Raises UserError."""
    try:
        with torch.device("meta"):
            model = build_denoiser(description)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"model.change={settings.model.change}: {str(error).splitlines()[0]}") from None
    multiple = int(getattr(model.network, "multiple", 1))
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
    stages = state_bytes(parameters, cluster.workers)
    sizes = ", ".join(f"stage {stage} {_size(count)}" for stage, count in stages.items())
    return (
        f"{description['kind']} of width {description['width']}: {parameters / 1e6:.2f} M parameters; weights, gradients "
        f"and optimiser on each of {cluster.workers} workers: {sizes}; this run uses stage {cluster.zero_stage}"
    )


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
