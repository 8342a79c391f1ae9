"""The table of precisions in docs/student.md, from what benchmarks.speed.precision measured."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import number, plain, source, table
from benchmarks.report import Row

MARKERS = "<!-- precision: rebuilt by", "<!-- end of precision -->"
NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def _line(row: Row) -> list[str]:
    network = {"unet": "UNet", "fno": "FNO"}[row["network"]]
    whole = row["precision"] == "fp32"
    apart = ["-", "-"] if whole else [f"{row[key]:.1e}" for key in ("apart", "apart_head")]
    low, high = (plain(value, 2) for value in row["spread"])
    took = plain(row["ms"], 2) + ("" if whole else f", {plain(row['ratio'], 2)} ({low} to {high})")
    name = f"{row['student']}, {network}"
    return [name, NAMES[row["precision"]], *apart, number(row["residual_dual"]), number(row["residual_l2"]), took]


def page(result: dict[str, Any]) -> str:
    """Return the table."""
    meta = result["meta"]
    heads = ["student", "precision", "network", "with head", "residual dual", "residual l2", "ms / sample"]
    return f"""{table(heads, map(_line, result["rows"]))}

*network* and *with head*: distance from the sample in float32 of the same noise, without solver steps and with them, in
the worst channel, relative to it; {meta["samples"]} samples. Residuals are medians, with the head. Milliseconds of
processor time, of the network in batches of {meta["batch"]} on one thread, are medians of {meta["repeats"]} turns;
behind them is the ratio to float32, with the least and the greatest of a turn.
{meta["machine"]}, torch {meta["versions"]["torch"]}. {source("precision")}."""
