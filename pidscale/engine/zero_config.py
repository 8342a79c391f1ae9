"""DeepSpeed's configuration of a run, from our settings and the user's own section, which is checked here.

Knows no ranks and imports no DeepSpeed, so that a driver can check it before any worker starts.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pidscale.config import UserError
from pidscale.precision import FLOAT32_BYTES

_BUCKET = (
    5 * 10**7
)  # parameters whose gradients are reduced at a time; DeepSpeed's own default is ten times as many, 2 GB
_LIVE = 10**9  # parameters that stage 3 has gathered at a time at most, by DeepSpeed's default
# keys whose values follow from settings of ours, and the names of those
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
# keys that would change what a step computes, and the reason to refuse them
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
    "zero_optimization.compute_grad_norm": "steps whose gradient is not finite are recognised by its norm",
    "elasticity": "it changes the global batch",
    "prescale_gradients": "the loss contract averages over all ranks",
    "gradient_predivide_factor": "the loss contract averages over all ranks",
    "sequence_parallel_size": "the loss contract averages over all ranks",
    "data_parallel_size": "the loss contract averages over all ranks",
    "tensor_parallel": "ZeRO divides the state of models, not the models",
    "curriculum_learning": "the samples of a step depend on the step only",
    "data_efficiency": "the samples of a step depend on the step only",
    "progressive_layer_drop": "it changes the model",
    "compression_training": "it changes the model",
}
# keys that DeepSpeed reads and that do not change what a step computes; DeepSpeed ignores unknown keys silently
_PASSED = {
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
    """Check the user's own keys for DeepSpeed, which are passed on unchanged.

    Args:
        section: The section `cluster.deepspeed`.

    Raises:
        UserError: A key follows from a setting of ours, changes what a step computes, or is unknown; the message names it.
    """
    flat = _flatten(section)
    for key in [*section, *flat]:
        for ours, owner in _OURS.items():
            if key == ours or key.startswith(ours + "."):
                raise UserError(f"cluster.deepspeed.{key}: set by {owner}; remove this key")
        for inexact, reason in _INEXACT.items():
            if key == inexact or key.startswith(inexact + "."):
                raise UserError(f"cluster.deepspeed.{key}: refused, {reason}")
    for key in section:
        if key not in _PASSED:
            close = difflib.get_close_matches(str(key), _PASSED, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(sorted(_PASSED))}"
            raise UserError(f"cluster.deepspeed.{key}: unknown or not supported; {advice}")
    if "zero_optimization" in flat:
        raise UserError(
            f"cluster.deepspeed.zero_optimization={flat['zero_optimization']!r}: expected a section with keys"
        )
    for part in ("offload_optimizer", "offload_param"):
        if flat.get(f"zero_optimization.{part}.device") == "nvme":
            raise UserError(
                f"cluster.deepspeed.zero_optimization.{part}.device=nvme: refused, since the average of the weights would "
                "read each parameter from the disk at every step; use device=cpu"
            )


def _flatten(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a nested section by dotted keys."""
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
    """Return the configuration for `deepspeed.initialize`: float32, explicit clipping, ZeRO over all ranks.

    Args:
        stage: The ZeRO stage.
        micro_batch: The samples of a micro-step on one rank.
        accumulation: The micro-steps of a step.
        clip: The largest norm of the gradient; 0 for no clipping.
        section: The section `cluster.deepspeed`, which `check_passthrough` checks.
        parameters: The number of parameters of the model; buckets for more than these would waste memory.

    Returns:
        The configuration.
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
        "timers": {"throughput": {"enabled": False}},  # it would wait for the whole device twice in every micro-step
        "zero_optimization": {"stage": stage, **bucket, **zero},
        **own,
    }


def state_bytes(parameters: int, workers: int, stage: int) -> tuple[int, int, int]:
    """Return the float32 bytes of the weights, the gradients and the optimiser's state on one worker.

    Stage 1 divides the optimiser's state, stage 2 also the gradients, stage 3 also the weights. The optimiser's state is the
    two moments of Adam and, from stage 1 on, the copy of the weights that DeepSpeed updates. What else DeepSpeed needs is in
    `buffer_bytes`.

    Args:
        parameters: The number of parameters of the model.
        workers: The number of workers.
        stage: The ZeRO stage.

    Returns:
        The bytes of weights, gradients and optimiser's state.
    """
    one = FLOAT32_BYTES * parameters
    split = -(-one // workers)
    return (
        split if stage > 2 else one,
        split if stage > 1 else one,
        3 * split if stage > 0 else 2 * one,
    )


def buffer_bytes(parameters: int, stage: int, section: Mapping[str, Any]) -> tuple[int, int]:
    """Return the float32 bytes of what DeepSpeed needs besides the state of a network on one worker.

    Args:
        parameters: The number of parameters of the model.
        stage: The ZeRO stage.
        section: The section `cluster.deepspeed`.

    Returns:
        The bytes of the bucket of gradients that are reduced together, and of the weights that stage 3 gathers for a step.
    """
    own = section.get("zero_optimization", {})
    bucket = int(own.get("reduce_bucket_size", min(_BUCKET, parameters)))
    live = min(parameters, int(own.get("stage3_max_live_parameters", _LIVE)))
    return FLOAT32_BYTES * bucket if stage > 0 else 0, FLOAT32_BYTES * live if stage > 2 else 0


def update_bytes(parameters: int, workers: int, stage: int) -> int:
    """Return the float32 bytes that a step of the optimiser needs on one worker beyond `state_bytes`.

    Adam computes two temporary tensors of the size of what it updates, and stage 3 copies the gradients into one. Gradients
    that stage 1 has divided are freed before. Stage 0 updates one tensor after the other, so that it needs next to nothing.

    Args:
        parameters: The number of parameters of the model.
        workers: The number of workers.
        stage: The ZeRO stage.

    Returns:
        The bytes.
    """
    one = FLOAT32_BYTES * parameters
    split = -(-one // workers)
    return (0, max(0, 3 * split - one), 2 * split, 3 * split)[stage]
