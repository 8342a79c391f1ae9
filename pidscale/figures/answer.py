"""A picture of what was known and what was found. Only this needs matplotlib, so it is imported when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pidscale.figures.fields import label_axes, show_field, titled
from pidscale.figures.png import figure_class
from pidscale.generator.tasks.observations import Observation
from pidscale.generator.tasks.posterior import Posterior
from pidscale.generator.tasks.readings import Separable
from pidscale.ops.grid import Grid
from pidscale.ops.interpolate import point_coordinates
from pidscale.pde.base import shown_channels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pidscale.generator.generator import Generator
    from pidscale.generator.tasks.likeliest import Answer

FEW = 0.2  # share of known points up to which each is drawn as a dot


@dataclass(frozen=True)
class Row:
    """The pictures of one channel, side by side.

    Attributes:
        title: Name and unit of the channel.
        panels: Fields [Y, X] by title; NaN where nothing is known.
        sensors_M3: Places (y, x) and values of sensors, drawn as dots.
    """

    title: str
    panels: dict[str, Tensor]
    sensors_M3: Tensor = field(default_factory=lambda: torch.zeros(0, 3))


def layers(
    generator: Generator,
    observation: Observation | None,
    answer: Answer | Posterior,
    truth: Mapping[str, Any] | None = None,
    number: int = 0,
) -> list[Row]:
    """Collect what is drawn of one observation.

    Args:
        generator: The generator that was asked.
        observation: What was known; None draws only what was found.
        answer: What was found: one answer, or posterior samples with mean and spread.
        truth: The true fields [n, Y, X] by channel, if they are known.
        number: Number of the observation.

    Returns:
        A row for each shown channel.
    """
    found = answer.mean if isinstance(answer, Posterior) else answer.fields
    rows = []
    for c in shown_channels(generator.pde):
        name = generator.channels[c]
        panels = {} if truth is None else {"truth": torch.as_tensor(truth[name])[number]}
        sensors = torch.zeros(0, 3)
        if observation is not None:
            known = observation.known_NCYX[number, c]
            sensors = _sensors(generator, observation, number, c)
            hidden = ~known if known.double().mean() > FEW else torch.ones_like(known)
            panels["known"] = observation.values_NCYX[number, c].masked_fill(hidden, float("nan"))
        if isinstance(answer, Posterior):
            panels |= {"mean": found[name][number], "spread": answer.spread[name][number]}
            panels |= {"one sample": answer.samples[name][number, 0]}
        else:
            panels["answer"] = found[name][number]
        rows.append(Row(titled(generator.pde.channels[c]), panels, sensors))
    return rows


def _sensors(generator: Generator, observation: Observation, number: int, c: int) -> Tensor:
    """Return places (y, x) and values [M, 3] of the few known points and of the readings of a channel."""
    y, x = (point_coordinates(generator.grid, dim) for dim in (0, 1))
    known = observation.known_NCYX[number, c]
    parts = [torch.zeros(0, 3, dtype=torch.float64)]
    if known.double().mean() <= FEW:
        rows, columns = known.nonzero().T
        parts.append(torch.stack([y[rows], x[columns], observation.values_NCYX[number, c][known].double()], dim=1))
    for one in observation.readings:
        if isinstance(one.read, Separable) and one.channel == generator.channels[c]:  # values and means, not slopes
            at = torch.stack(
                [one.read.y_MY.double() @ y, one.read.x_MX.double() @ x, one.values_NM[number].double()], 1
            )
            parts.append(at[one.known_NM[number]])
    return torch.cat(parts)


def answer_figure(rows: list[Row], grid: Grid) -> Figure:
    """Draw rows of fields. Those of a channel share one colour scale; its spread has another.

    Args:
        rows: What `layers` returns.
        grid: The grid of the fields.

    Returns:
        The figure.
    """
    columns = len(rows[0].panels)
    figure = figure_class("a picture")(figsize=(2.4 * columns + 0.4, 2.1 * len(rows) + 0.1), layout="constrained")
    for line, row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        values = torch.stack([row.panels[name].double() for name in ("truth", "mean", "answer") if name in row.panels])
        low, high = float(values.min()), float(values.max())
        for axis, (title, shown) in zip(line, row.panels.items(), strict=True):
            how: dict[str, Any] = {"vmin": low, "vmax": high, "cmap": "viridis"}
            if title == "spread":
                how = {"vmin": 0.0, "vmax": float(shown.max()), "cmap": "magma"}
            image = show_field(axis, grid, shown.numpy(), **how)
            y, x, readings = row.sensors_M3.T.tolist()
            if title == "known" and bool(shown.isnan().all()) and not readings:
                axis.text(0.5, 0.5, "nothing", fontsize=8, ha="center", transform=axis.transAxes)
            elif title == "known":
                axis.scatter(x, y, 22, readings, edgecolors="black", linewidths=0.5, **how)
            elif title == "spread":
                axis.scatter(x, y, 5, "white")
            axis.set_title(f"{row.title}: {title}", fontsize=8)
            label_axes(axis, grid, left=axis is line[0], below=row is rows[-1])
            figure.colorbar(image, ax=axis, shrink=0.85).ax.tick_params(labelsize=6)
    return figure
