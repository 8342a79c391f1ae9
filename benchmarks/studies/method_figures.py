"""How the pictures of docs/method.md are drawn. All have a white ground with room around it, for dark pages too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from benchmarks.report import Row
from pidscale.figures.fields import residual_map
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.pde.base import Pde, Samples
from pidscale.pde.residuals import residual_rms

DPI = 90
PAD = 0.12  # inches around a picture
SMALL = 8  # points of text
NAMES = {"teacher": "teacher, 35 calls", "student-lambda0": "without the residual", "student": "with the residual"}


def save(path: Path, figure: Figure) -> None:
    """Write a figure as PNG."""
    figure.set_layout_engine("constrained", w_pad=PAD, h_pad=PAD)
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).print_png(str(path), metadata={"Software": None})


def _show(axis: Axes, values: Tensor, colours: str, low: float, high: float) -> AxesImage:
    axis.set_xticks([])
    axis.set_yticks([])
    return axis.imshow(values.numpy(), vmin=low, vmax=high, cmap=colours, origin="lower", interpolation="nearest")


def _residual(pde: Pde, grid: Grid, fields: Tensor) -> Tensor:
    """Return the residual of physical fields relative to the source, [B, y, x]."""
    return residual_map(pde, Window(grid), Samples(fields, fields.new_zeros(len(fields), 0)))


def _norms(pde: Pde, grid: Grid, fields: Tensor) -> str:
    found = residual_rms(pde, grid, fields)
    return f"l2 {found['l2']:.2g}, dual {found['dual']:.2g}"


def path_figure(pde: Pde, grid: Grid, states: Sequence[tuple[float, Tensor, Tensor]]) -> Figure:
    """Return noisy permeability, its mean and the residual of the mean at some noise levels of one path."""
    figure = Figure(figsize=(1.6 * len(states) + 1.0, 5.3))
    axes = figure.subplots(3, len(states))
    for column, (sigma, noisy, mean) in zip(axes.T, states, strict=True):
        spread = noisy[0, 0].std()
        middle = noisy[0, 0].mean()
        _show(column[0], noisy[0, 0], "viridis", float(middle - 2 * spread), float(middle + 2 * spread))
        column[0].set_title(f"noise level {sigma:.3g}", fontsize=SMALL)
        means = _show(column[1], mean[0, 0], "viridis", 3.0, 12.0)
        residuals = _show(column[2], _residual(pde, grid, mean)[0], "RdBu_r", -1.0, 1.0)
        column[2].set_title(_norms(pde, grid, mean), fontsize=SMALL)
    for line, name in zip(axes, ("noisy permeability\n(own scale)", "its mean", "residual\nof the mean"), strict=True):
        line[0].set_ylabel(name, fontsize=SMALL)
    figure.colorbar(means, ax=list(axes[1]), aspect=14, label="permeability").ax.tick_params(labelsize=SMALL)
    figure.colorbar(residuals, ax=list(axes[2]), aspect=14, label="residual / source").ax.tick_params(labelsize=SMALL)
    return figure


def curves_figure(means: Sequence[Row], calls: Sequence[Row]) -> Figure:
    """Return the residual of exact means by noise level, and what networks reach by their calls."""
    figure = Figure(figsize=(9.2, 3.6))
    left, right = figure.subplots(1, 2)
    for name, norm, style in (("darcy", "l2", "C0-o"), ("darcy", "dual", "C0--s"), ("poisson", "l2", "C1-o")):
        rows = [row for row in means if row["pde"] == name]
        label = f"{'Darcy' if name == 'darcy' else 'Poisson'}, {norm}"
        left.loglog([row["sigma"] for row in rows], [row[norm] for row in rows], style, label=label, markersize=4)
    left.set_xlabel("noise level (data have 0.5)")
    left.set_ylabel("residual of the mean")
    rows = [row for row in calls if row["network"] == "teacher"]
    right.loglog([row["calls"] for row in rows], [row["dual"] for row in rows], "C0-o", label="teacher", markersize=4)
    for name, style in (("student-lambda0", "C1s"), ("student", "C2D")):
        (row,) = (row for row in calls if row["network"] == name)
        right.loglog([row["calls"]], [row["dual"]], style, label=f"one call, {NAMES[name]}", markersize=7)
    right.set_xlabel("network calls a sample")
    right.set_ylabel("residual, dual norm")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=SMALL)
    return figure


def pairs_figure(pde: Pde, grid: Grid, made: Mapping[str, Tensor]) -> Figure:
    """Return permeability and residual of the samples that networks make of the same noise."""
    count = len(next(iter(made.values())))
    figure = Figure(figsize=(2 * 1.5 * count + 1.2, 1.75 * len(made)))
    axes = figure.subplots(len(made), 2 * count)
    for line, (name, fields) in zip(axes, made.items(), strict=True):
        for sample, residual in enumerate(_residual(pde, grid, fields)):
            inputs = _show(line[2 * sample], fields[sample, 0], "viridis", 3.0, 12.0)
            residuals = _show(line[2 * sample + 1], residual, "RdBu_r", -3.0, 3.0)
            line[2 * sample + 1].set_title(_norms(pde, grid, fields[sample : sample + 1]), fontsize=SMALL)
        line[0].set_ylabel(NAMES[name], fontsize=SMALL)
    figure.colorbar(inputs, ax=list(axes[0]), aspect=10, label="permeability").ax.tick_params(labelsize=SMALL)
    figure.colorbar(residuals, ax=list(axes[1]), aspect=10, label="residual / source").ax.tick_params(labelsize=SMALL)
    return figure


def norms_figure(pde: Pde, truth: Tensor, wrong: Mapping[str, Tensor]) -> Figure:
    """Return a true pressure and two wrong ones, with their residuals."""
    grid = pde.grid(truth.shape[-1])
    shown = {"truth": truth, **wrong}
    titles = {"truth": "truth", "noise": "with white noise", "smooth": "with a smooth error"}
    figure = Figure(figsize=(2.3 * len(shown) + 1.0, 4.9))
    axes = figure.subplots(2, len(shown))
    high = max(float(fields[0, 1].max()) for fields in shown.values())
    for column, (name, fields) in zip(axes.T, shown.items(), strict=True):
        error = float((fields[:, 1] - truth[:, 1]).norm() / truth[:, 1].norm())
        pressures = _show(column[0], fields[0, 1], "viridis", 0.0, high)
        column[0].set_title(f"{titles[name]}\nerror of the pressure {error:.2g}", fontsize=SMALL)
        residuals = _show(column[1], _residual(pde, grid, fields)[0], "RdBu_r", -2.0, 2.0)
        column[1].set_title(_norms(pde, grid, fields), fontsize=SMALL)
    axes[0][0].set_ylabel("pressure", fontsize=SMALL)
    axes[1][0].set_ylabel("residual", fontsize=SMALL)
    figure.colorbar(pressures, ax=list(axes[0]), aspect=14, label="pressure").ax.tick_params(labelsize=SMALL)
    figure.colorbar(residuals, ax=list(axes[1]), aspect=14, label="residual / source").ax.tick_params(labelsize=SMALL)
    return figure
