"""What the measures of a comparison are called and mean, and its rows as plain text. Knows no methods and no files."""

from __future__ import annotations

from typing import Any

from pidscale.page.html import Title

MEASURES = {
    "nfe": Title("calls", "network calls of a sample"),
    "gradients": Title("gradients", "network calls with their gradient, of a sample"),
    "residual_l2": Title("residual l2", "root mean square of the equation's residual, relative to its own scale"),
    "residual_dual": Title("residual dual", "H⁻¹ norm of the residual, close to the error of the solution"),
    "residual_abs": Title("mean |residual|", "mean absolute residual, relative to the equation's own scale"),
    "boundary_rms": Title(
        "boundary", "root mean square of what is left on the edge of the domain, relative to the solution"
    ),
    "solution_error": Title("solution error", "distance from a numerical solution for the same inputs, relative to it"),
    "phase_error": Title("phase error", "mean distance of a two-phase coefficient from its nearest phase"),
    "misclassified": Title("wrong phase", "share of points in the wrong phase"),
    "mmse": Title("MMSE", "mean squared difference of the pointwise means of samples and truths"),
    "smse": Title("SMSE", "mean squared difference of their pointwise standard deviations"),
    "swd": Title("SWD", "sliced Wasserstein distance between samples and held-out truths"),
    "swd_excess": Title("SWD excess", "what that distance has beyond the one between two sets of truths"),
    "patch_swd": Title("patch SWD", "sliced Wasserstein distance between patches of 5 x 5 points"),
    "feature_distance": Title("feature distance", "Fréchet distance between means and spectra of samples and truths"),
    "feature_excess": Title("feature excess", "what that distance has beyond the one between two sets of truths"),
    "spectrum_error": Title("spectrum error", "mean |ln| of the ratio of the power of samples to that of truths"),
    "nearest_training": Title(
        "nearest training", "distance from the nearest training field, relative to the sample's norm"
    ),
    "ms_per_sample": Title("ms / sample", "milliseconds for a sample, on the machine of the report"),
    "train_seconds": Title(
        "training s", "seconds of training; those of a student include its teacher and its endpoints"
    ),
    "n_samples": Title("n", "number of samples"),
}
"""Titles of the measures of a row by their key, in the order of the columns."""

_COLUMNS = {
    "method": "method",
    "nfe": "calls",
    "residual_l2": "l2",
    "residual_dual": "dual",
    "boundary_rms": "boundary",
    "solution_error": "solution err",
    "swd_excess": "swd excess",
    "phase_error": "phase err",
    "ms_per_sample": "ms/sample",
}


def table(result: dict[str, Any]) -> str:
    """Return the rows of a result as aligned text.

    Args:
        result: Rows and meta data, as report/metrics.json holds them.

    Returns:
        A line of headings, then one line for each row.
    """
    channels = result["meta"]["channels_shown"]
    lines = [[*_COLUMNS.values(), *(f"var {c[:12]}" for c in channels)]]
    for r in result["rows"]:
        values = [r[c] for c in _COLUMNS] + [r["variance_ratio"][c] for c in channels]
        lines.append(["-" if v is None else f"{v:.3g}" if isinstance(v, float) else str(v) for v in values])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)
