"""Figures of a report: spectra, and error against network calls. Knows no methods and no files."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pidscale import metrics
from pidscale.dataset.problem import Problem
from pidscale.pde.base import Samples, shown_channels

_ERRORS = {"solution_error": "solution error", "residual_l2": "residual l2", "residual_dual": "residual dual"}


def html_image(figure: Figure) -> str:
    """Return a figure as an HTML image that contains its data."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def spectra_figure(problem: Problem, shown: dict[str, Samples]) -> Figure:
    """Plot the spectra of the shown channels."""
    chosen = shown_channels(problem.pde)
    names = [problem.pde.channels[i].name for i in chosen]
    figure = Figure(figsize=(4.6 * len(names), 3.4), layout="constrained")
    for name, channel, axis in zip(names, chosen, figure.subplots(1, len(names), squeeze=False)[0], strict=True):
        for label, samples in shown.items():
            power = metrics.spectrum(problem.normaliser.encode(samples.fields))[channel]
            axis.loglog(torch.arange(1, len(power)), power[1:], label=label)
        axis.set_title(name)
        axis.set_xlabel("wave number")
        axis.set_ylabel("power")
        axis.legend()
    return figure


def calls_figure(lines: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Plot errors against the number of network calls.

    Args:
        lines: Rows of a comparison by the label of the line that joins them.

    Returns:
        One panel for each error, both axes logarithmic.
    """
    figure = Figure(figsize=(13.5, 3.6), layout="constrained")
    for axis, (key, title) in zip(figure.subplots(1, len(_ERRORS)), _ERRORS.items(), strict=True):
        for mark, (label, rows) in zip(itertools.cycle("os^v"), lines.items(), strict=False):
            axis.loglog([row["nfe"] for row in rows], [row[key] for row in rows], f"{mark}-", label=label)
        axis.set_xlabel("network calls")
        axis.set_title(title)
        axis.legend(fontsize=8)
    return figure
