"""An estimate, not a measurement: what a training step of a large model computes and sends on up to eight GPUs.

Counts of floating-point operations, messages and bytes are divided by rates that are stated.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report import Row
from pidscale.models import architecture, build_denoiser
from pidscale.models.fno import SpectralConv
from pidscale.models.layers import Attention

GPU = {
    "tflops": 300,  # a third of the bf16 peak
    "gb_per_second": 450,  # NVLink 4, each way
    "latency_us": 15,  # of a small message
}
CASES = (("unet", "medium", 1024), ("unet", "medium", 2048), ("fno", "medium", 2048))
CHANGES: dict[str, dict[str, Any]] = {  # attention at 512 points a side is too dear
    "unet": {"attention_levels": 0},
    "fno": {},
}
SPACE = (1, 2, 4, 8)
CHANNELS = 2
WIDTH = 2  # bytes of a feature that is sent, in bf16


@lru_cache(maxsize=8)
def _counted(kind: str, size: str, points: int) -> tuple[float, list[tuple[str, int]]]:
    """TFLOP of a training step on one sample, and kind and elements of what each layer that communicates would send."""
    talks: list[tuple[str, int]] = []

    def note(layer: nn.Module, inputs: tuple[Any, ...], _: Any) -> None:
        if not isinstance(layer, (nn.Conv2d, nn.GroupNorm, Attention, SpectralConv)):
            return
        batch, channels, rows, columns = inputs[0].shape
        if isinstance(layer, nn.Conv2d) and layer.kernel_size[0] > 1:
            talks.append(("halo", batch * channels * columns * (layer.kernel_size[0] // 2)))
        elif isinstance(layer, nn.GroupNorm):
            talks.append(("statistics", 2 * batch * layer.num_groups))
        elif isinstance(layer, Attention):
            talks.append(("gather", 2 * batch * channels * rows * columns))
        elif isinstance(layer, SpectralConv):
            talks.append(("modes", 4 * batch * channels * layer.modes**2))

    with FakeTensorMode():
        model = build_denoiser(architecture(kind, size, CHANNELS, **CHANGES[kind]))
        for layer in model.modules():
            layer.register_forward_hook(note)
        with FlopCounterMode(display=False) as counter:
            model(torch.randn(1, CHANNELS, points, points), torch.ones(1)).sum().backward()
    return counter.get_total_flops() / 1e12, talks


def _sent(talks: list[tuple[str, int]], space: int) -> tuple[int, float]:
    """Messages and bytes that an inner rank sends in a step, there and back."""
    messages = 0
    size = 0.0
    for kind, elements in talks:
        if kind == "halo":  # both neighbours
            messages += 4
            size += 2 * 2 * elements * WIDTH
        elif kind == "gather":  # all that others hold comes here, and its gradient goes back
            messages += 2
            size += 2 * elements * WIDTH * (space - 1) / space
        else:  # small sums in float32, there and back; a ring sends each twice
            messages += 2
            size += 2 * 2 * elements * 4 * (space - 1) / space
    return messages, size


def estimates() -> Iterator[Row]:
    """Yield one row for each model and number of ranks that share a field."""
    for kind, size, points in CASES:
        tflop, talks = _counted(kind, size, points)
        for space in SPACE:
            messages, sent = _sent(talks, space) if space > 1 else (0, 0.0)
            compute = tflop / space / GPU["tflops"] * 1e3
            exchange = messages * GPU["latency_us"] * 1e-3 + sent / GPU["gb_per_second"] / 1e6
            yield {
                "case": f"{kind} {size}, {points} x {points}",
                "space": space,
                "tflop": tflop / space,
                "messages": messages,
                "megabytes": sent / 1e6,
                "compute_ms": compute,
                "exchange_ms": exchange,
                "efficiency": compute / (compute + exchange),
            }
