"""A picture of what was known and what was found. Only this needs matplotlib, so it is imported when asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from pidscale.figures.png import figure_class, write_png
from pidscale.generator.tasks.observations import Observation
from pidscale.generator.tasks.posterior import Posterior
from pidscale.pde.base import shown_channels

if TYPE_CHECKING:
    from pidscale.generator.generator import Generator
    from pidscale.generator.tasks.likeliest import Answer


def layers(
    generator: Generator, observation: Observation, answer: Answer | Posterior
) -> list[tuple[str, list[tuple[str, Tensor]]]]:
    """Collect the fields to draw of the first observation.

    Args:
        generator: The generator that was asked.
        observation: What was known.
        answer: What was found: one answer, or posterior samples with mean and spread.

    Returns:
        For each shown channel its name and its pictures, each a title and a field [Y, X]; NaN where nothing is known.
    """
    found = answer.mean if isinstance(answer, Posterior) else answer.fields
    rows = []
    for c in shown_channels(generator.pde):
        name = generator.channels[c]
        known = observation.values_NCYX[0, c].masked_fill(~observation.known_NCYX[0, c], float("nan"))
        row = [("known", known), ("mean" if isinstance(answer, Posterior) else "answer", found[name][0])]
        if isinstance(answer, Posterior):
            row += [("spread", answer.spread[name][0]), ("one sample", answer.samples[name][0, 0])]
        rows.append((name, row))
    return rows


def draw(path: Path, rows: list[tuple[str, list[tuple[str, Tensor]]]]) -> None:
    """Draw rows of fields as a PNG. The fields of a channel share one colour scale; its spread has another.

    A file that cannot be written raises a UserError.

    Args:
        path: The file to write.
        rows: What `layers` returns.
    """
    columns = len(rows[0][1])
    figure = figure_class(path)(figsize=(2.6 * columns, 2.2 * len(rows)), layout="constrained")
    for line, (name, row) in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        answer = row[1][1].numpy()
        for axis, (title, field) in zip(line, row, strict=True):
            scale = (0.0, None) if title == "spread" else (float(np.min(answer)), float(np.max(answer)))
            colours = "magma" if title == "spread" else "viridis"
            image = axis.imshow(field.numpy(), vmin=scale[0], vmax=scale[1], cmap=colours, origin="lower")
            axis.set_title(f"{name}: {title}", fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
            figure.colorbar(image, ax=axis, shrink=0.85).ax.tick_params(labelsize=6)
    write_png(path, figure)
