"""Rows of a comparison as a plain text table. Knows no methods and no files."""

from __future__ import annotations

from typing import Any

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
