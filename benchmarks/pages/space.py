"""docs/split_measured.md, from what benchmarks.speed.space counted and timed.

The last table is not measured: the same counts for one model on eight GPUs, with bandwidths that are stated.
"""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import groups, spread, table
from benchmarks.report import Row
from benchmarks.speed.estimate import GPU, estimates


def _counted(rows: list[Row]) -> str:
    return ", ".join(f"{row['messages']} {row['kind']} ({row['bytes']:,} bytes)" for row in rows) or "nothing"


def _counts(rows: list[Row], start: str) -> str:
    """Messages forward and backward of each case whose name begins so."""
    lines = []
    for case, own in groups([row for row in rows if row["case"].startswith(start)], "case").items():
        ways = [_counted([row for row in own if row["way"] == way]) for way in ("forward", "backward")]
        lines.append([case.removeprefix("residual of "), *ways])
    return table(["", "forward", "backward"], lines)


def _steps(rows: list[Row]) -> str:
    heads = ["step", "mesh", "seconds (low to high)", "1 rank takes x times as long", "of it in exchanges"]
    base = {row["step"]: row["seconds"] for row in rows if row["mesh"] == "1 rank"}
    lines = [
        [
            row["step"],
            row["mesh"],
            spread(row["seconds"], row["low"], row["high"], ".2f"),
            f"{base[row['step']] / row['seconds']:.2f}",
            f"{row['exchange_share']:.0%}",
        ]
        for row in rows
    ]
    return table(heads, lines)


def _attention(rows: list[Row]) -> str:
    heads = ["coarse field", "gathered, ms", "ring, ms", "ring / gathered (quartiles)", "keys and values held, MiB"]
    lines = [
        [
            f"{row['side']} x {row['side']}",
            *(f"{1e3 * seconds:.1f}" for seconds in row["seconds"].values()),
            spread(row["ratio"], row["low"], row["high"], ".2f"),
            ", ".join(f"{size / 2**20:.2f}" for size in row["bytes"].values()),
        ]
        for row in rows
    ]
    return table(heads, lines)


def _estimated() -> str:
    heads = [
        "model, field",
        "space",
        "TFLOP a rank",
        "messages",
        "MB sent",
        "compute, ms",
        "exchange, ms",
        "efficiency",
    ]
    lines = [
        [
            row["case"],
            str(row["space"]),
            f"{row['tflop']:.2f}",
            f"{row['messages']:.0f}",
            f"{row['megabytes']:.1f}",
            f"{row['compute_ms']:.1f}",
            f"{row['exchange_ms']:.1f}",
            f"{row['efficiency']:.0%}",
        ]
        for row in estimates()
    ]
    return table(heads, lines)


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    meta = result["meta"]
    rows = result["rows"]
    return f"""# What sharing a field costs

What workers send each other when they share every field, and what it does to the time of a step. [split.md](split.md)
explains what the exchanges are for. By `python -m benchmarks.speed.space`.

## Messages of a residual

Counted on an inner rank of four, {meta["points"]} x {meta["points"]} points, one sample, all frames: `halo` is one message to
each of two neighbours, `transpose` an all-to-all, of which one is the dual norm's; what a rank keeps is not counted.

{_counts(rows, "residual")}

## Messages of a network

One sample of two channels on four ranks, {meta["points"]} x {meta["points"]} points.

{_counts(rows, "unet")}

{_counts(rows, "fno")}

The spectral layer (24 channels, 8 modes) sends its kept modes, whatever the resolution:

{_counts(rows, "spectral")}

## Time of a step

UNet tiny on Poisson, {meta["points"]} x {meta["points"]}, global batch {meta["batch"]}, ZeRO 1, one thread a rank, on
{meta["machine"]}. Medians over {meta["repeats"]} runs in turns of the median of their steps; ranks talk by gloo on one host.

{_steps(result["steps"])}

## Attention: gathered or round a ring

128 channels and 4 heads over all points of a coarse field, two ranks, forward, in turns. Both ways send the same bytes. The
network gathers: where attention takes long the two take as long as each other, the products being the same, and what a ring
would save of memory is small beside the activations of the levels above; it needs one kernel, which every device has.

{_attention(result["attention"])}

## The same on eight GPUs, on paper

Not measured: floating-point operations of a training step on one sample (forward and backward, as torch counts them on
tensors without bytes) at {GPU["tflops"]} TFLOP/s, a third of the bf16 peak of an H200; messages and bytes of each layer that
talks, {GPU["latency_us"]} microseconds a message and {GPU["gb_per_second"]} GB/s each way (NVLink). Nothing is hidden behind
anything: compute and exchange are added up. UNets without attention, which would gather whole levels of this size; norms and
activations, which are bound by memory, are not counted as compute, so that the efficiency is a lower bound.

{_estimated()}
"""
