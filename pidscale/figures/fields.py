"""Pictures of fields: each channel has one colour scale and a colour bar over all rows. Knows no files.

Matplotlib is imported by the first picture: workers start without it, and only one of them draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pidscale.engine.window import on_first
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.pde.base import Pde, Samples, shown_channels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_POINTS = 512  # points along a side of a picture; larger fields are subsampled
RESIDUAL = "residual"  # name of the residual beside those of the channels


def residual_map(pde: Pde, window: Window, samples: Samples) -> Tensor:
    """Return the interior residual relative to its scale, [B, y, x]: the root mean square over any other dims."""
    term = pde.residual(window, samples.fields, samples.params)["interior"]
    values = term.values / term.scale
    return values if values.ndim == 3 else values.flatten(1, -3).square().mean(dim=1).sqrt()


def field_figure(pde: Pde, grid: Grid, sets: Mapping[str, Samples], count: int = 4) -> Figure:
    """Draw fields and residuals: one row for each channel and set, one column for each sample.

    The colour scale of a channel is that of the first set (the truth); residuals share a symmetric scale.

    Args:
        pde: The equation.
        grid: The grid of the fields.
        sets: Samples [B, C, Y, X] in physical units, by name.
        count: The number of samples that are drawn.

    Returns:
        The figure.
    """
    return _draw(pde, {label: layers(pde, Window(grid), samples, count) for label, samples in sets.items()}, count)


def _draw(pde: Pde, shown: Mapping[str, Mapping[str, np.ndarray]], count: int) -> Figure:
    """Draw the layers of each set, by name."""
    from matplotlib.figure import Figure

    names = [pde.channels[i].name for i in shown_channels(pde)] + [RESIDUAL]
    rows = [(name, label) for name in names for label in shown]
    figure = Figure(figsize=(1.5 * count + 1.6, 1.45 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), count, squeeze=False)
    scales = {name: _colour_scale(name, shown) for name in names}
    for (name, label), line in zip(rows, axes, strict=True):
        low, high, colours = scales[name]
        for column, axis in enumerate(line):
            axis.set_xticks([])
            axis.set_yticks([])
            if column < len(shown[label][name]):
                image = axis.imshow(shown[label][name][column], vmin=low, vmax=high, cmap=colours, origin="lower")
        line[0].set_ylabel(f"{name}\n{label}", fontsize=7)
        figure.colorbar(image, ax=list(line), shrink=0.9, aspect=12).ax.tick_params(labelsize=6)
    return figure


def layers(
    pde: Pde, window: Window, samples: Samples, count: int = 4, points: int = MAX_POINTS
) -> dict[str, np.ndarray]:
    """Return what is drawn of samples of which each rank holds some rows.

    Every rank of the window calls this. Two collectives for each channel that is drawn and for the residual: the number of
    rows of each rank, then the subsampled rows.

    Args:
        pde: The equation.
        window: The rows that this rank holds.
        samples: Samples [B, C, y, X] in physical units.
        count: The number of samples that are drawn.
        points: The largest number of points along a side.

    Returns:
        Channels and residual by name, [n, y, x] each, on the rank with the first row; empty on the others.
    """
    fields = samples.fields[:count].detach().float()
    with torch.no_grad():
        residual = residual_map(pde, window, Samples(fields, samples.params[:count]))
    found = {pde.channels[i].name: fields[:, i] for i in shown_channels(pde)} | {RESIDUAL: residual}
    stride = -(-max(window.grid.shape) // points)
    picked = {name: on_first(window, values, stride) for name, values in found.items()}
    return {name: values.cpu().numpy() for name, values in picked.items() if values is not None}


def _colour_scale(name: str, shown: Mapping[str, Mapping[str, np.ndarray]]) -> tuple[float, float, str]:
    """Return least and greatest value of a channel's colour scale, and its colour map."""
    if name == RESIDUAL:
        top = max(0.1, *(float(np.quantile(np.abs(one[name]), 0.98)) for one in shown.values()))
        return -top, top, "RdBu_r"
    first = next(iter(shown.values()))[name]
    return float(first.min()), float(first.max()), "viridis"
