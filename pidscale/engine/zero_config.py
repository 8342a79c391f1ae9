"""The DeepSpeed dictionary of a run: derived from our settings, with the user's own section merged in and checked.

Knows no ranks and imports no DeepSpeed, so that a driver can check it before any worker starts.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pidscale.config import UserError
from pidscale.precision import FLOAT32_BYTES

_BUCKET = 5 * 10**8  # parameters whose gradients DeepSpeed reduces at a time, if nothing else is said
# keys that would change what a step computes, and what decides them instead
_OURS = {
    "gradient_clipping": "teacher.clip and distill.clip",
    "train_batch_size": "global_batch",
    "train_micro_batch_size_per_gpu": "micro_batch",
    "gradient_accumulation_steps": "global_batch and micro_batch",
    "optimizer": "lr (the optimiser is torch's AdamW)",
    "scheduler": "lr and warmup",
    "zero_optimization.stage": "cluster.zero_stage",
    "tensorboard": "the run's own TensorBoard writer",
}
_INEXACT = {
    "fp16": "gradients in float16 are not exact; use model.precision=bf16",
    "bf16": "it casts the spectral layers and the last convolution; use model.precision=bf16",
    "torch_autocast": "it casts the spectral layers; use model.precision=bf16",
    "amp": "use model.precision=bf16",
    "communication_data_type": "gradients are reduced in float32",
    "data_types": "gradients are accumulated in float32",
    "zero_optimization.zenflow": "it delays part of the update",
    "zero_optimization.zero_quantized_weights": "it rounds weights",
    "zero_optimization.zero_quantized_gradients": "it rounds gradients",
    "zero_optimization.compute_grad_norm": "a step whose gradient is not finite is known by its norm",
    "elasticity": "it changes the global batch",
    "prescale_gradients": "the loss contract averages over all ranks",
    "gradient_predivide_factor": "the loss contract averages over all ranks",
    "sequence_parallel_size": "the loss contract averages over all ranks",
    "data_parallel_size": "the loss contract averages over all ranks",
    "tensor_parallel": "models stay whole; ZeRO splits their state",
    "curriculum_learning": "which samples a step sees is a function of the step alone",
    "data_efficiency": "which samples a step sees is a function of the step alone",
    "progressive_layer_drop": "it changes the model",
    "compression_training": "it changes the model",
}
_PASSED = {  # sections that DeepSpeed reads and that leave a step's result as it is; it ignores unknown ones without a word
    "zero_optimization",
    "aio",
    "activation_checkpointing",
    "comms_logger",
    "communication_bucket_size",
    "disable_allgather",
    "dump_state",
    "flops_profiler",
    "memory_breakdown",
    "steps_per_print",
    "timers",
    "wall_clock_breakdown",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
}


def check_passthrough(section: Mapping[str, Any]) -> None:
    """Raise UserError that names a key of `cluster.deepspeed` which conflicts with our settings or our exactness."""
    flat = _flatten(section)
    for key in [*section, *flat]:
        for ours, owner in _OURS.items():
            if key == ours or key.startswith(ours + "."):
                raise UserError(f"cluster.deepspeed.{key}: set by {owner}; remove it here")
        for inexact, reason in _INEXACT.items():
            if key == inexact or key.startswith(inexact + "."):
                raise UserError(f"cluster.deepspeed.{key}: refused, {reason}")
    for key in section:
        if key not in _PASSED:
            close = difflib.get_close_matches(str(key), _PASSED, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(sorted(_PASSED))}"
            raise UserError(f"cluster.deepspeed.{key}: unknown or not supported; {advice}")
    if "zero_optimization" in flat:
        raise UserError(
            f"cluster.deepspeed.zero_optimization={flat['zero_optimization']!r}: expected a section with keys"
        )
    offload = flat.get("zero_optimization.offload_optimizer.device", "none")
    if offload == "nvme" and not flat.get("zero_optimization.offload_optimizer.nvme_path"):
        raise UserError("cluster.deepspeed.zero_optimization.offload_optimizer.nvme_path: needed with device=nvme")


def _flatten(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def deepspeed_dict(
    stage: int,
    micro_batch: int,
    accumulation: int,
    clip: float,
    section: Mapping[str, Any],
    parameters: int | None = None,
) -> dict[str, Any]:
    """The dictionary for `deepspeed.initialize`: float32, explicit clipping, ZeRO over the whole world.

    parameters: of the model; a bucket for more of them at a time would be memory for nothing.
    """
    check_passthrough(section)
    own = dict(section)
    bucket = {} if parameters is None else {"reduce_bucket_size": min(_BUCKET, parameters)}
    zero = dict(own.pop("zero_optimization", {}))
    if "offload_optimizer" in zero:
        own.setdefault("zero_force_ds_cpu_optimizer", False)  # the optimiser stays torch's AdamW
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": clip,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**12,
        "zero_optimization": {"stage": stage, **bucket, **zero},
        **own,
    }


def state_bytes(parameters: int, workers: int, stage: int) -> tuple[int, int, int]:
    """Bytes of weights, gradients and optimiser on one worker, in float32, under a ZeRO stage.

    Stage 1 splits the optimiser, 2 gradients too, 3 weights too. The optimiser is two moments of Adam, from stage 1 on also
    the copy of the weights that DeepSpeed updates. Its buckets (`reduce_bucket_size`) and what stage 3 gathers for a while
    come on top.
    """
    one = FLOAT32_BYTES * parameters
    split = -(-one // workers)
    return (
        split if stage > 2 else one,
        split if stage > 1 else one,
        3 * split if stage > 0 else 2 * one,
    )
