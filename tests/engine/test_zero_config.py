"""DeepSpeed's configuration: our own values stay, inexact keys are refused by name, other known keys are passed on."""

from __future__ import annotations

from typing import Any

import pytest

from pidscale.config import UserError
from pidscale.engine.zero_config import check_passthrough, deepspeed_dict

REFUSED: dict[str, tuple[Any, str]] = {  # key, a value, a word of the reason
    "gradient_clipping": (1.0, "teacher.clip"),
    "train_batch_size": (8, "global_batch"),
    "train_micro_batch_size_per_gpu": (8, "micro_batch"),
    "gradient_accumulation_steps": (2, "global_batch"),
    "optimizer": ({"type": "Adam"}, "AdamW"),
    "scheduler": ({"type": "WarmupLR"}, "warmup"),
    "zero_optimization.stage": (3, "cluster.zero_stage"),
    "tensorboard": ({"enabled": True}, "TensorBoard"),
    "fp16": ({"enabled": True}, "model.precision"),
    "bf16": ({"enabled": True}, "spectral"),
    "torch_autocast": ({"enabled": True}, "spectral"),
    "amp": ({"enabled": True}, "model.precision"),
    "communication_data_type": ("bf16", "float32"),
    "data_types": ({"grad_accum_dtype": "bf16"}, "float32"),
    "zero_optimization.zenflow": ({"topk_ratio": 0.1}, "delays"),
    "zero_optimization.zero_quantized_weights": (True, "rounds"),
    "zero_optimization.zero_quantized_gradients": (True, "rounds"),
    "zero_optimization.compute_grad_norm": (False, "norm"),
    "elasticity": ({"enabled": True}, "global batch"),
    "prescale_gradients": (True, "averages"),
    "gradient_predivide_factor": (2.0, "averages"),
    "sequence_parallel_size": (2, "averages"),
    "data_parallel_size": (2, "averages"),
    "tensor_parallel": ({"autotp_size": 2}, "ZeRO divides the state"),
    "compression_training": ({"weight_quantization": {"shared_parameters": {}, "on": True}}, "model"),
}


def section(key: str, value: Any) -> dict[str, Any]:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


@pytest.mark.parametrize("key", REFUSED)
def test_a_refused_key_is_named_with_the_reason(key: str) -> None:
    value, reason = REFUSED[key]
    for check in (check_passthrough, lambda s: deepspeed_dict(1, 2, 2, 1.0, s)):
        with pytest.raises(UserError) as raised:
            check(section(key, value))
        text = str(raised.value)
        assert text.startswith(f"cluster.deepspeed.{key}") and reason in text and "\n" not in text, text


def test_an_empty_section_that_we_set_is_refused_too() -> None:
    with pytest.raises(UserError, match=r"cluster\.deepspeed\.optimizer: set by lr"):
        check_passthrough({"optimizer": {}})


def test_a_key_that_only_begins_like_ours_is_passed_on() -> None:
    made = deepspeed_dict(1, 2, 2, 1.0, {"timers": {"a": 1}, "zero_optimization": {"stage3_prefetch_bucket_size": 7}})
    assert made["timers"] == {"a": 1}
    assert made["zero_optimization"] == {"stage": 1, "stage3_prefetch_bucket_size": 7}


@pytest.mark.parametrize(
    ("key", "words"), [("wall_clock_brekdown", "did you mean 'wall_clock_breakdown'"), ("q", "aio")]
)
def test_a_key_that_deepspeed_would_ignore_is_refused(key: str, words: str) -> None:
    with pytest.raises(UserError, match=rf"^cluster\.deepspeed\.{key}: unknown .*{words}"):
        check_passthrough({key: True})


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_our_own_values_are_always_written(stage: int) -> None:
    given = {"zero_optimization": {"overlap_comm": True}, "wall_clock_breakdown": True}
    made = deepspeed_dict(stage, 4, 3, 0.7, given)
    assert made["gradient_clipping"] == 0.7  # DeepSpeed's default is 1
    assert made["train_micro_batch_size_per_gpu"] == 4 and made["gradient_accumulation_steps"] == 3
    assert made["zero_optimization"] == {"stage": stage, "overlap_comm": True}
    assert made["wall_clock_breakdown"] is True and "zero_force_ds_cpu_optimizer" not in made
    assert given == {"zero_optimization": {"overlap_comm": True}, "wall_clock_breakdown": True}  # not changed
    assert deepspeed_dict(stage, 4, 3, 0.0, {})["gradient_clipping"] == 0.0


def test_an_offloaded_optimiser_is_torchs() -> None:
    offload = {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}
    made = deepspeed_dict(2, 1, 1, 1.0, offload)
    assert made["zero_force_ds_cpu_optimizer"] is False
    assert made["zero_optimization"]["offload_optimizer"] == {"device": "cpu"}


@pytest.mark.parametrize("part", ["offload_optimizer", "offload_param"])
def test_offload_to_disk_is_refused(part) -> None:
    """The average and a checkpoint would read every parameter from it, one by one."""
    with pytest.raises(UserError, match=rf"zero_optimization\.{part}\.device=nvme: refused, .* device=cpu"):
        check_passthrough({"zero_optimization": {part: {"device": "nvme", "nvme_path": "/nvme"}}})
    check_passthrough({"zero_optimization": {part: {"device": "cpu"}}})


def test_a_number_in_place_of_a_section_is_refused() -> None:
    with pytest.raises(UserError, match=r"cluster\.deepspeed\.zero_optimization=2"):
        deepspeed_dict(1, 1, 1, 1.0, {"zero_optimization": 2})
