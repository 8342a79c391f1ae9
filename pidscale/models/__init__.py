"""Denoiser networks as plain modules, and how a description builds one. Knows no ranks, files or equations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pidscale.models.fno import FNO_PRESETS, Fno
from pidscale.models.precondition import PREDICTIONS, PreconditionedNetwork
from pidscale.models.unet import UNET_PRESETS, UNet

PRESETS: dict[str, dict[str, dict[str, Any]]] = {"unet": UNET_PRESETS, "fno": FNO_PRESETS}
NETWORKS: dict[str, type[nn.Module]] = {"unet": UNet, "fno": Fno}


def architecture(kind: str, size: str, channels: int, conditions: int = 0, **changes: Any) -> dict[str, Any]:
    """Return the full description of a network, as a card stores it.

    Args:
        kind: `unet` or `fno`.
        size: A preset of that kind, such as `tiny`.
        channels: The channels of the joint field.
        conditions: The number of PDE parameters that the network is conditioned on.
        **changes: Values that replace those of the preset. A value of the wrong kind raises a ValueError too.

    Returns:
        The description: the arguments of the network's class, and `kind`.

    Raises:
        ValueError: The kind, the size or the name of a change is unknown; the message names the key.
    """
    if kind not in PRESETS:
        raise ValueError(f"model.kind={kind!r}: expected one of {sorted(PRESETS)}")
    if size not in PRESETS[kind]:
        raise ValueError(f"model.size={size!r}: expected one of {list(PRESETS[kind])}")
    preset = PRESETS[kind][size]
    for key in changes:
        if key not in preset:
            raise ValueError(f"model.change.{key}: unknown setting of {kind}; expected one of {sorted(preset)}")
        _check_change(key, changes[key], preset[key])
    return {"kind": kind, "channels": channels, "conditions": conditions, **preset, **changes}


def _check_change(key: str, value: Any, preset: Any) -> None:
    """Raise ValueError unless a value is of the preset's kind: an integer, or a list of integers."""
    least = 0 if key == "attention_levels" else 1
    parts = value if isinstance(preset, list) and isinstance(value, (list, tuple)) else [value]
    if isinstance(preset, list) != isinstance(value, (list, tuple)) or not parts:
        raise ValueError(f"model.change.{key}={value!r}: expected a value such as {preset!r}")
    for part in parts:
        if isinstance(preset, (int, list)) and (isinstance(part, bool) or not isinstance(part, int) or part < least):
            raise ValueError(f"model.change.{key}={value!r}: expected integers of {least} or more, such as {preset!r}")


_MOST = {  # of a network's numbers, so that a wrong description fails at once; the largest preset is far below
    "width": 2**16,
    "multipliers": 2**10,
    "blocks": 64,
    "attention_levels": 16,
    "embedding": 2**16,
    "patch": 64,
    "modes": 2**12,
    "layers": 256,
    "channels": 2**12,
    "conditions": 2**10,
}
_MOST_LEVELS = 8
_MOST_PADDING = 4.0


def check_description(description: Mapping[str, Any]) -> None:
    """Check that a description, as a card stores it, is one of a network that can be built.

    Args:
        description: What `architecture` made, perhaps with `prediction`.

    Raises:
        ValueError: When a key is unknown or missing, or a value has a wrong type or range; the line names the key.
    """
    kind = description.get("kind")
    if not isinstance(kind, str) or kind not in PRESETS:
        raise ValueError(f"architecture.kind={_shown(kind)}: expected one of {sorted(PRESETS)}")
    prediction = description.get("prediction", "edm")
    if not isinstance(prediction, str) or prediction not in PREDICTIONS:
        raise ValueError(f"architecture.prediction={_shown(prediction)}: expected one of {sorted(PREDICTIONS)}")
    preset = next(iter(PRESETS[kind].values()))
    wanted = {*preset, "channels"} - {"patch"}
    known = {*preset, "channels", "kind", "prediction", "conditions"}
    for key in wanted - set(description):
        raise ValueError(f"architecture.{key}: missing")
    for key in set(description) - known:
        raise ValueError(f"architecture.{_shown(key)}: a {kind} has no such setting")
    for key, value in description.items():
        if key in ("kind", "prediction"):
            continue
        if key == "padding":
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not 0 <= value <= _MOST_PADDING:
                raise ValueError(f"architecture.padding={_shown(value)}: expected a number from 0 to {_MOST_PADDING:g}")
            continue
        _check_counts(key, value, isinstance(preset.get(key), list))


def _check_counts(key: str, value: Any, several: bool) -> None:
    """Raise ValueError unless a value is a whole number within its bounds, or a list of them."""
    least = 0 if key in ("attention_levels", "conditions") else 1
    parts = value if several and isinstance(value, (list, tuple)) else [value]
    if several != isinstance(value, (list, tuple)) or not 1 <= len(parts) <= _MOST_LEVELS:
        raise ValueError(f"architecture.{key}={_shown(value)}: expected {'a list of ' * several}whole numbers")
    for part in parts:
        if not isinstance(part, int) or isinstance(part, bool) or not least <= part <= _MOST[key]:
            raise ValueError(f"architecture.{key}={_shown(value)}: expected whole numbers from {least} to {_MOST[key]}")


def _shown(value: Any) -> str:
    """A wrong value for a message."""
    text = repr(value) if isinstance(value, (str, int, float, type(None))) else type(value).__name__
    return text if len(text) <= 40 else f"{text[:40]}..."


def without_bytes(description: Mapping[str, Any]) -> PreconditionedNetwork:
    """Build the network on the meta device, where tensors have shapes alone: to count parameters and look at layers."""
    with torch.device("meta"):
        return build_denoiser(description)


def row_unit(description: Mapping[str, Any]) -> int:
    """Return the number that the rows of a network's fields must be a multiple of, on account of its levels and patches."""
    return int(getattr(without_bytes(description).network, "multiple", 1))


def build_denoiser(
    description: Mapping[str, Any], sigma_data: float = 0.5, precision: str = "fp32", recompute: bool = False
) -> PreconditionedNetwork:
    """Build the preconditioned network of a description.

    Args:
        description: What `architecture` returned, and optionally `prediction`: a key of `PREDICTIONS`, `edm` by default.
        sigma_data: The standard deviation of the data in units of the model.
        precision: `fp32` or `bf16`, of the network's inner layers.
        recompute: Whether the backward pass recomputes activations instead of keeping them.

    Returns:
        The network, with random weights.
    """
    settings = dict(description)
    prediction = settings.pop("prediction", "edm")
    network: Any = NETWORKS[settings.pop("kind")](**settings)
    network.recompute = recompute
    return PreconditionedNetwork(network, sigma_data, precision, prediction)
