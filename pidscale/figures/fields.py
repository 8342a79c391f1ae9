"""Pictures of fields: each channel has one colour scale for all rows, and axes are coordinates of the grid. Knows no files.

Matplotlib is imported by the first picture: workers start without it, and only one of them draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pidscale.engine.window import on_first
from pidscale.figures.png import figure_class
from pidscale.ops.grid import Grid
from pidscale.ops.interpolate import point_coordinates
from pidscale.ops.window import Window
from pidscale.pde.base import Channel, Pde, Samples, shown_channels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_POINTS = 512  # points along a side of a picture; larger fields are subsampled
RESIDUAL = "residual"  # name of the residual beside those of the channels


def residual_map(pde: Pde, window: Window, samples: Samples) -> Tensor:
    """Return the interior residual relative to its scale, [B, y, x]: the root mean square over any other dims."""
    term = pde.residual(window, samples.fields, samples.params)["interior"]
    values = term.values / term.scale
    return values if values.ndim == 3 else values.flatten(1, -3).square().mean(dim=1).sqrt()


def field_figure(
    pde: Pde,
    grid: Grid,
    sets: Mapping[str, Samples],
    count: int = 4,
    channels: Sequence[str] = (),
    own_scales: bool = False,
) -> Figure:
    """Draw fields and residuals: one row for each channel and set, one column for each sample.

    The colour scale of a channel is that of the first set (the truth); residuals share a symmetric scale.

    Args:
        pde: The equation.
        grid: The grid of the fields.
        sets: Samples [B, C, Y, X] in physical units, by name.
        count: The number of samples that are drawn.
        channels: The channels that are drawn, and `residual`; empty for the residual and the channels of `shown_channels`.
        own_scales: Whether each row has a colour scale of its own.

    Returns:
        The figure.
    """
    names = list(channels) or [pde.channels[i].name for i in shown_channels(pde)] + [RESIDUAL]
    shown = {label: _found(pde, Window(grid), samples, names, count) for label, samples in sets.items()}
    return _draw(pde, grid, shown, names, count, own_scales)


def _draw(
    pde: Pde,
    grid: Grid,
    shown: Mapping[str, Mapping[str, np.ndarray]],
    names: Sequence[str],
    count: int,
    own_scales: bool,
) -> Figure:
    """Draw the layers of each set, by name."""
    titles = {RESIDUAL: "relative residual"} | {channel.name: titled(channel) for channel in pde.channels}
    rows = [(name, label) for name in names for label in shown]
    figure = figure_class("a picture")(figsize=(1.5 * count + 1.8, 1.45 * len(rows) + 0.1), layout="constrained")
    axes = figure.subplots(len(rows), count, squeeze=False)
    for number, (name, label) in enumerate(rows):
        line = axes[number]
        low, high, colours = _colour_scale(name, {label: shown[label]} if own_scales else shown)
        for column, axis in enumerate(line):
            if column >= len(shown[label][name]):
                axis.axis("off")
                continue
            image = show_field(axis, grid, shown[label][name][column], vmin=low, vmax=high, cmap=colours)
            label_axes(axis, grid, left=column == 0, below=number == len(rows) - 1)
        line[0].set_ylabel("\n".join(filter(None, (titles[name], label))), fontsize=7)
        figure.colorbar(image, ax=list(line), shrink=0.9, aspect=12).ax.tick_params(labelsize=6)
    return figure


def titled(channel: Channel) -> str:
    """Return the name of a channel with its unit, if it has one."""
    return channel.name if channel.unit == "1" else f"{channel.name} [{channel.unit}]"


def show_field(axis: Any, grid: Grid, values_YX: np.ndarray, **how: Any) -> Any:
    """Draw a field, or its residual on some of its points, at the coordinates of its grid.

    Args:
        axis: The axes to draw into.
        grid: The grid of the field.
        values_YX: The values; points beyond some hundred a side may have been left out.
        **how: Arguments of `imshow`.

    Returns:
        The image.
    """
    stride = max(1, round(grid.shape[1] / values_YX.shape[1]))
    ends = []
    limits = []
    for dim in (1, 0):
        points = point_coordinates(grid, dim)
        middle = float(points[0] + points[-1]) / 2
        half = values_YX.shape[dim] * stride * grid.spacing[dim] / 2
        ends += [middle - half, middle + half]
        whole = grid.shape[dim] * grid.spacing[dim] / 2
        limits.append((middle - whole, middle + whole))
    image = axis.imshow(values_YX, extent=ends, origin="lower", aspect="auto", **how)
    axis.set(xlim=limits[0], ylim=limits[1])  # of the whole grid: a residual may lack the points of the edge
    return image


def label_axes(axis: Any, grid: Grid, left: bool, below: bool) -> None:
    """Write where an axis ends: along the left side, and below.

    Args:
        axis: The axes.
        grid: The grid of the field in it.
        left: Whether the vertical axis is labelled.
        below: Whether the horizontal one is.
    """
    up = "t" if grid.kind == "strip" else "y"
    high, wide = grid.extent
    axis.set_box_aspect(1.0 if grid.kind == "strip" else high / wide)
    # the image of a periodic field ends half a spacing before its period does
    axis.set_yticks([0.0, min(high, axis.get_ylim()[1])], ["0", f"{up} = {high:g}"] if left else ["", ""], fontsize=6)
    axis.set_xticks([0.0, min(wide, axis.get_xlim()[1])], ["0", f"x = {wide:g}"] if below else ["", ""], fontsize=6)
    axis.tick_params(length=2)


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
    names = [pde.channels[i].name for i in shown_channels(pde)] + [RESIDUAL]
    return _found(pde, window, samples, names, count, points)


def _found(
    pde: Pde, window: Window, samples: Samples, names: Sequence[str], count: int, points: int = MAX_POINTS
) -> dict[str, np.ndarray]:
    """Return the channels and the residual of these names, as `layers` does."""
    fields = samples.fields[:count].detach().float()
    with torch.no_grad():
        residual = residual_map(pde, window, Samples(fields, samples.params[:count]))
    found = {channel.name: fields[:, i] for i, channel in enumerate(pde.channels)} | {RESIDUAL: residual}
    stride = -(-max(window.grid.shape) // points)
    picked = {name: on_first(window, found[name], stride) for name in names}
    return {name: values.cpu().numpy() for name, values in picked.items() if values is not None}


def _colour_scale(name: str, shown: Mapping[str, Mapping[str, np.ndarray]]) -> tuple[float, float, str]:
    """Return the ends of a channel's colour scale, and its colour map. A residual has 0.01 or more, several sets 0.1."""
    if name == RESIDUAL:
        least = 0.1 if len(shown) > 1 else 0.01
        top = max(least, *(float(np.quantile(np.abs(one[name]), 0.98)) for one in shown.values()))
        return -top, top, "RdBu_r"
    first = next(iter(shown.values()))[name]
    return float(first.min()), float(first.max()), "viridis"
