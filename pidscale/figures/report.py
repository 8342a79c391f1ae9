"""Figures of a report: spectra, and error against network calls. Knows no methods and no files."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from pidscale import metrics
from pidscale.diffusion.normaliser import Normaliser
from pidscale.pde.base import Pde, Samples, shown_channels

_ERRORS = {"solution_error": "solution error", "residual_l2": "residual l2", "residual_dual": "residual dual"}
_SIZE = (3.9, 3.0)  # inches of a figure, of which pages show several beside each other
_DPI = 140


def spectrum_figures(pde: Pde, normaliser: Normaliser, shown: Mapping[str, Samples]) -> dict[str, Figure]:
    """Plot the spectrum of each shown channel.

    Args:
        pde: The equation.
        normaliser: Units in which the power is taken.
        shown: Samples in physical units, two or more, by name.

    Returns:
        A figure for each channel, by its name.
    """
    power = {label: metrics.spectrum(normaliser.encode(samples.fields.float())) for label, samples in shown.items()}
    figures = {}
    for channel in shown_channels(pde):
        figure, axis = _panel(pde.channels[channel].name, "wave number")
        for label, shells in power.items():
            axis.plot(torch.arange(1, shells.shape[1]), shells[channel, 1:], label=label)
        axis.set_ylabel("power")
        axis.legend(fontsize=8)
        figures[pde.channels[channel].name] = figure
    return figures


def calls_figures(lines: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Figure]:
    """Plot errors against the number of network calls.

    Args:
        lines: Rows of a comparison by the label of the line that joins them.

    Returns:
        A figure for each error, both axes logarithmic, by its title.
    """
    figures = {}
    for key, title in _ERRORS.items():
        figure, axis = _panel(title, "network calls")
        for mark, (label, rows) in zip(itertools.cycle("os^v"), lines.items(), strict=False):
            axis.plot([row["nfe"] for row in rows], [row[key] for row in rows], f"{mark}-", label=label)
        axis.legend(fontsize=8)
        figures[title] = figure
    return figures


def _panel(title: str, across: str) -> tuple[Figure, Axes]:
    """Return a figure whose axes are logarithmic, with powers of two along the first."""
    figure = Figure(figsize=_SIZE, layout="constrained", dpi=_DPI)
    axis = figure.subplots()
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_title(title)
    axis.set_xlabel(across)
    axis.grid(alpha=0.25)
    return figure, axis
