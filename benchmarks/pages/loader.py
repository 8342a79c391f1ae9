"""docs/loader.md, from what benchmarks.speed.loader measured."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import source, spread, table
from benchmarks.report import Row
from benchmarks.speed.contestants import CHECKED, DECODE, UNCHECKED
from benchmarks.speed.loader import best

HEADS = ["reader", "cores", "fields/s (low to high)", "GiB/s", "ours checked is faster by", "unchecked by"]
SHOWN = {CHECKED: "ours, every block checked", UNCHECKED: "ours, unchecked", DECODE: "webdataset, `.decode()`"}
BEST = {
    "webdataset": "webdataset, best setting",
    "DataLoader, npy": "DataLoader, npy files",
    "DataLoader, HDF5": "DataLoader, one HDF5 file",
}


def _chosen(rows: list[Row]) -> list[tuple[Row, str, str]]:
    """The rows that are shown, each with its label and its key among the ratios; ours has none."""
    by_name = {row["contestant"]: row for row in rows}
    chosen = [(by_name[name], label, "decode()" if name == DECODE else "") for name, label in SHOWN.items()]
    for start, label in BEST.items():
        row = best(rows, start)
        setting = row["contestant"].removeprefix(f"{start}, ")
        chosen.append((row, f"{label} ({setting})", "best setting" if start == "webdataset" else start))
    return chosen


def _line(row: Row, label: str, key: str, ratios: dict[str, Any]) -> list[str]:
    speed = spread(row["fields_per_second"], row["low"], row["high"], ".0f")
    slower = [f"{ratios[f'{ours} to {key}']['ratio']:.1f}" if key else "" for ours in ("checked", "unchecked")]
    return [label, str(row["cores"]), speed, f"{row['gib_per_second']:.2f}", *slower]


def _section(name: str, rows: list[Row], ratios: dict[str, Any]) -> str:
    """The table of one size of fields."""
    shape = " x ".join(map(str, rows[0]["shape"]))
    head = f"## Fields of {name} ({shape} float32), batches of {rows[0]['batch']}"
    return f"{head}\n\n" + table(HEADS, [_line(*chosen, ratios) for chosen in _chosen(rows)])


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    meta = result["meta"]
    sections = [
        _section(name, [row for row in result["rows"] if row["case"] == name], ratios)
        for name, ratios in result["ratios"].items()
    ]
    shares = sorted({(row["space"], row["share"]) for row in result["bytes"]})
    read = ", ".join(f"{share:.4f} for P = {space}" for space, share in shares)
    return f"""# How fast fields are read

How the reader of shards compares with webdataset and torch's DataLoader ([data.md](data.md) says how to set it). By
`python -m benchmarks.speed.loader`: the same numbers in a shard set, in npy files and in one HDF5 file, page cache warm,
readers in turns, medians of {meta["repeats"]} epochs. pidscale's reader (*ours*) delivers shuffled batches, a DataLoader
collated ones in order,
webdataset single arrays in order, which favours it. All deliver equal numbers, which each run proves.

{(chr(10) * 2).join(sections)}

A rank that holds one of P blocks of rows reads its share of the bytes: {read}.

{meta["machine"]}. {source("loader")}, which has every setting that was tried, the first epochs, and the
versions.
"""
