"""A plan of `pidscale compare` in parts, one equation and seed at a time, put together in one table that is kept.

python -m benchmarks.studies.side_by_side [--plan papers] [--pde darcy] [--seed 0] [--folder runs/side_by_side]
    [--json benchmarks/results/papers.json] [WORD ...]

Each part is a run of launch/compare.py, which goes on where it was interrupted. The file keeps the rows of all parts, the
settings that each was made with, and its hours. Beside it are the page, NAME.html, and what the pictures need, NAME.npz: a
few samples of each row of the first seed, in float16. Further words are those of the command, such as pde.points=64.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import Row, known_rows, options, processor, save
from benchmarks.studies.measure import sheet_page
from pidscale.pde.base import Samples

FIELDS = "fields:"  # begins the names of arrays in the files of cells


def run_part(plan: str, pde: str, seed: int, folder: Path, words: list[str]) -> tuple[dict[str, Any], Path]:
    """Run one part to its end, and return its table and its folder. Cells may have failed."""
    name = f"{plan}-{pde}-{seed}"
    own = [f"compare={plan}", f"compare.equations=[{pde}]", f"compare.seeds=[{seed}]"]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "launch/compare.py", *own, f"run.folder={folder}", f"run.name={name}", *words], check=False
    )
    table = folder / name / "compare.json"
    if not table.exists():
        raise SystemExit(f"error: {name}: ended with {done.returncode} and without a table")
    result: dict[str, Any] = json.loads(table.read_text())
    result["meta"]["hours"] = (time.monotonic() - began) / 3600
    return result, folder / name


def pictures(part: Path) -> dict[str, np.ndarray]:
    """Return the samples that the cells of a part keep, by row, float16."""
    found: dict[str, np.ndarray] = {}
    for path in sorted((part / "cells").glob("*-sample-*.npz")):
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                if name.startswith(FIELDS) and "+" not in name:
                    found[name.removeprefix(FIELDS)] = file[name].astype(np.float16)
    return found


def write_together(path: Path) -> None:
    """Write the page of all parts that a file has."""
    result = json.loads(path.read_text())
    parts = result["meta"]["parts"]
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
        kept = {name: file[name] for name in file.files}
    shown: dict[str, dict[str, Samples]] = {}
    for name, fields in kept.items():
        pde, row = name.split(":", 1)
        samples = Samples(torch.from_numpy(fields.astype(np.float32)), torch.zeros(len(fields), 0))
        shown.setdefault(pde, {})[row] = samples
    path.with_suffix(".html").write_text(sheet_page(result["rows"], result["failed"], parts, shown))


def keep(path: Path, part: dict[str, Any], pde: str, seed: int, drawn: dict[str, np.ndarray]) -> None:
    """Add a part to the file, in place of an earlier one of the same equation and seed."""
    before: dict[str, Any] = {"failed": [], "meta": {"parts": {}}}
    if path.exists():
        before = json.loads(path.read_text())

    def others(rows: list[Row]) -> list[Row]:
        return [row for row in rows if (row["equation"], row["seed"]) != (pde, seed)]

    parts = before["meta"]["parts"] | {f"{pde}-{seed}": part["meta"]}
    meta = {"parts": parts, "machine": processor(), "versions": part["meta"]["versions"]}
    meta["hours"] = sum(one["hours"] for one in parts.values())
    rows = others(known_rows(path)) + part["rows"]
    save(path, {"rows": rows, "failed": others(before["failed"]) + part["failed"], "meta": meta})
    stored = path.with_suffix(".npz")
    arrays: dict[str, Any] = {}
    if stored.exists():
        with np.load(stored, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    seeds = {int(name.rsplit("-", 1)[1]) for name in parts if name.startswith(f"{pde}-")}
    if seed == min(seeds):
        arrays = {name: values for name, values in arrays.items() if not name.startswith(f"{pde}:")}
        arrays |= {f"{pde}:{name}": values for name, values in drawn.items()}
    np.savez_compressed(stored, allow_pickle=False, **arrays)


def main() -> None:
    """Run the parts that are asked for, one after the other, and write table and page after each."""
    parser = options(__doc__, "papers")
    parser.add_argument("--plan", default="papers")
    parser.add_argument("--pde", nargs="+", default=["darcy", "poisson", "burgers"])
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--folder", type=Path, default=Path("runs/side_by_side"))
    parser.add_argument("words", nargs="*", help="further words of the command")
    asked = parser.parse_args()
    for seed, pde in product(asked.seed, asked.pde):
        part, folder = run_part(asked.plan, pde, seed, asked.folder.absolute(), asked.words)
        keep(asked.json, part, pde, seed, pictures(folder))
        write_together(asked.json)
        print(f"{pde}, seed {seed}: {part['meta']['hours']:.2f} hours, {len(part['failed'])} cells failed", flush=True)


if __name__ == "__main__":
    main()
