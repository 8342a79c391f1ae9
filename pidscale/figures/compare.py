"""Figures of a comparison: two measures of every row against each other. Knows no methods and no files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

PAIRS = (  # measures of both axes, lower is better
    ("swd_excess", "residual_dual"),
    ("ms_per_sample", "solution_error"),
    ("train_seconds", "solution_error"),
)


def pareto_figure(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> Figure:
    """Plot pairs of measures, both axes logarithmic; a line joins the rows that no other row beats in both.

    Args:
        rows: Rows with a `method` and numbers by measure. Rows without one of the two numbers, or with 0, are left out.
        titles: Titles of the measures.

    Returns:
        One panel for each of PAIRS.
    """
    figure = Figure(figsize=(6.2 * len(PAIRS), 5.2), layout="constrained")
    marks = zip(itertools.cycle("os^vDP*X"), itertools.cycle(f"C{k}" for k in range(10)), strict=False)
    styles = dict(zip((row["method"] for row in rows), marks, strict=False))
    lines = {}
    for axis, (across, up) in zip(figure.subplots(1, len(PAIRS)), PAIRS, strict=True):
        placed = [
            (row[across], row[up], row["method"]) for row in rows if _shown(row.get(across)) and _shown(row.get(up))
        ]
        for x, y, name in placed:
            mark, colour = styles[name]
            (lines[name],) = axis.loglog([x], [y], mark, color=colour, label=name, markersize=6)
        front = best_of([(x, y) for x, y, _ in placed])
        axis.loglog([x for x, _ in front], [y for _, y in front], "-", color="0.6", zorder=0, linewidth=1)
        axis.set_xlabel(titles[across])
        axis.set_ylabel(titles[up])
        axis.grid(alpha=0.3)
    if lines:
        shown = [name for name in styles if name in lines]
        figure.legend([lines[name] for name in shown], shown, loc="outside lower center", ncols=6, fontsize=7)
    return figure


def best_of(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other point beats in one coordinate without losing in the other, by the first coordinate."""
    front: list[tuple[float, float]] = []
    for point in sorted(set(points)):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def _shown(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0
