"""What every benchmark shares: the file that its figures go to, and what they were measured on."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pidscale.environment import processor as processor
from pidscale.plain import json_text

if TYPE_CHECKING:
    from torch import Tensor

Row = dict[str, Any]
RESULTS = Path("benchmarks/results")


def options(doc: str | None, name: str) -> argparse.ArgumentParser:
    """Return a parser that knows --json, by default benchmarks/results/NAME.json."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULTS / f"{name}.json", help="the file of rows and meta")
    return parser


def known_rows(path: Path) -> list[Row]:
    """Return the rows that a file holds, none where it does not exist."""
    if not path.exists():
        return []
    rows: list[Row] = json.loads(path.read_text())["rows"]
    return rows


def known_trials(path: Path) -> list[Row]:
    """Return the single trials that a file holds beside its rows, none where it does not exist."""
    if not path.exists():
        return []
    trials: list[Row] = json.loads(path.read_text())["trials"]
    return trials


def merged(path: Path, rows: list[Row], keys: tuple[str, ...]) -> list[Row]:
    """Return these rows after those of a file that differ from each of them in some value of `keys`."""
    own = [[row[key] for key in keys] for row in rows]
    return [row for row in known_rows(path) if [row[key] for key in keys] not in own] + rows


def circumstances(**own: Any) -> dict[str, Any]:
    """Return the `meta` of a result: versions and commit, the machine, and the benchmark's own settings."""
    from pidscale.run.phases import versions  # imports all that trains, which not every benchmark needs from the start

    return {"versions": versions(), "machine": processor(), **own}


def ratios(own: Sequence[float], other: Sequence[float]) -> tuple[float, list[float]]:
    """Return the median, and [least, greatest], of the ratios of single turns, in each of which both were timed."""
    each = [a / b for a, b in zip(own, other, strict=True)]
    return statistics.median(each), [min(each), max(each)]


def apart(found: Tensor, wanted: Tensor) -> float:
    """Return the distance of joint fields [N, C, Y, X] in the worst channel, relative to its norm."""
    distance = (found - wanted).square().sum(dim=(0, 2, 3)).sqrt()
    return float((distance / wanted.square().sum(dim=(0, 2, 3)).sqrt()).max())


def save(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json_text(result, indent=1) + "\n")


def finish(path: Path, result: dict[str, Any], page: str = "") -> None:
    """Write a result and print it.

    Args:
        path: The file of the result.
        result: `rows`, `meta` and whatever other lists of rows there are. Printed are the words and numbers of each row.
        page: The page of benchmarks/pages that shows it, if there is one.
    """
    save(path, result)
    for name, rows in result.items():
        if isinstance(rows, list):
            print(f"{name}:", *map(_line, rows), sep="\n  ")
    print(f"written to {path}")
    if page:
        print(f"shown by: python -m benchmarks.pages {page} --json {path}")


def _line(row: Row) -> str:
    shown = {key: value for key, value in row.items() if isinstance(value, (str, int, float))}
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in shown.items()
    )
