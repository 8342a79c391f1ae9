"""Denoiser networks as plain modules. Nothing here knows about ranks, files or equations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pidscale.models.fno import FNO_PRESETS, Fno
from pidscale.models.precondition import Denoiser
from pidscale.models.unet import UNET_PRESETS, UNet

PRESETS: dict[str, dict[str, dict[str, Any]]] = {"unet": UNET_PRESETS, "fno": FNO_PRESETS}
NETWORKS: dict[str, type[nn.Module]] = {"unet": UNet, "fno": Fno}


def architecture(kind: str, size: str, channels: int, conditions: int = 0, **changes: Any) -> dict[str, Any]:
    """Return the full description of a network, as a card stores it. Raises ValueError that names the key.

    conditions: parameters of each sample that the network is told.
    """
    if kind not in PRESETS:
        raise ValueError(f"model.kind={kind!r}: expected one of {sorted(PRESETS)}")
    if size not in PRESETS[kind]:
        raise ValueError(f"model.size={size!r}: expected one of {list(PRESETS[kind])}")
    preset = PRESETS[kind][size]
    for key in changes:
        if key not in preset:
            raise ValueError(f"model.change.{key}: {kind} has no such setting; it has {sorted(preset)}")
        _check_change(key, changes[key], preset[key])
    return {"kind": kind, "channels": channels, "conditions": conditions, **preset, **changes}


def _check_change(key: str, value: Any, preset: Any) -> None:
    """Raise ValueError unless the value is of the preset's kind: a count, or a list of counts."""
    least = 0 if key == "attention_levels" else 1
    parts = value if isinstance(preset, list) and isinstance(value, (list, tuple)) else [value]
    if isinstance(preset, list) != isinstance(value, (list, tuple)) or not parts:
        raise ValueError(f"model.change.{key}={value!r}: expected something like {preset!r}")
    for part in parts:
        if isinstance(preset, (int, list)) and (isinstance(part, bool) or not isinstance(part, int) or part < least):
            raise ValueError(
                f"model.change.{key}={value!r}: expected whole numbers of {least} or more, like {preset!r}"
            )


def without_bytes(description: Mapping[str, Any]) -> Denoiser:
    """The network with shapes alone, on the meta device: to count parameters and to ask for its layers."""
    with torch.device("meta"):
        return build_denoiser(description)


def row_unit(description: Mapping[str, Any]) -> int:
    """Points a side that stay together: what levels and patches of a network divide its fields by."""
    return int(getattr(without_bytes(description).network, "multiple", 1))


def build_denoiser(
    description: Mapping[str, Any], sigma_data: float = 0.5, precision: str = "fp32", recompute: bool = False
) -> Denoiser:
    """Build the preconditioned network of a description made by `architecture`; `prediction` in it: `edm` unless said."""
    settings = dict(description)
    prediction = settings.pop("prediction", "edm")
    network: Any = NETWORKS[settings.pop("kind")](**settings)
    network.recompute = recompute
    return Denoiser(network, sigma_data, precision, prediction)
