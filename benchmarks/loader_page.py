"""docs/loader.md, from what benchmarks/loader.py measured: python -m benchmarks.loader writes both."""

from __future__ import annotations

from typing import Any

from benchmarks.contestants import CHECKED, DECODE, UNCHECKED

_SHOWN = {CHECKED: "ours, every block checked", UNCHECKED: "ours, unchecked", DECODE: "webdataset, `.decode()`"}
_BEST = {"webdataset": "webdataset, best setting", "DataLoader, npy": "DataLoader, npy files"}
_BEST |= {"DataLoader, HDF5": "DataLoader, one HDF5 file"}


def best(rows: list[dict[str, Any]], start: str) -> dict[str, Any]:
    """The fastest row of the contestants whose name begins so."""
    return max((r for r in rows if r["contestant"].startswith(start)), key=lambda r: r["fields_per_second"])


def _lines(rows: list[dict[str, Any]], ratios: dict[str, Any]) -> list[str]:
    """One line a contestant, of one size of fields; ours has no ratio."""
    by_name = {row["contestant"]: row for row in rows}
    chosen = [(by_name[name], label, "decode()" if name == DECODE else "") for name, label in _SHOWN.items()]
    for start, label in _BEST.items():
        row = best(rows, start)
        setting = row["contestant"].removeprefix(f"{start}, ")
        chosen.append((row, f"{label} ({setting})", "best setting" if start == "webdataset" else start))
    lines = []
    for row, label, key in chosen:
        speed = f"{row['fields_per_second']:.0f} ({row['low']:.0f} to {row['high']:.0f})"
        slower = [f"{ratios[f'{ours} to {key}']['ratio']:.1f}" if key else "" for ours in ("checked", "unchecked")]
        cells = [label, str(row["cores"]), speed, f"{row['gib_per_second']:.2f}", *slower]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def page(result: dict[str, Any]) -> str:
    """The page."""
    meta, sections = result["meta"], []
    for name, ratios in result["ratios"].items():
        rows = [row for row in result["rows"] if row["case"] == name]
        shape = " x ".join(map(str, rows[0]["shape"]))
        head = f"## Fields of {name} ({shape} float32), batches of {rows[0]['batch']}"
        table = ["| reader | cores | fields/s (low to high) | GiB/s | ours checked is faster by | unchecked by |"]
        table += ["|---|---|---|---|---|---|", *_lines(rows, ratios)]
        sections.append(f"{head}\n\n" + "\n".join(table))
    shares = sorted({(row["space"], row["share"]) for row in result["bytes"]})
    told = ", ".join(f"{share:.4f} for P = {space}" for space, share in shares)
    return f"""# How fast fields are read

`python -m benchmarks.loader`: the same numbers in a shard set, in npy files and in one HDF5 file, page cache warm, readers in
turns, medians of {meta["repeats"]} epochs. Ours delivers shuffled batches, a DataLoader collated ones in order, webdataset
single arrays in order, which favours it. All deliver equal numbers, which each run proves.

{(chr(10) * 2).join(sections)}

A rank that holds one of P blocks of rows reads its share of the bytes: {told}.

{meta["machine"]}. Source: benchmarks/results/loader.json, which has every setting that was tried, the first epochs, and the
versions.
"""
