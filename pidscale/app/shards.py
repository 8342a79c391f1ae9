"""`pidscale shards`: verify, show or repair a shard set (shards/README.md)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pidscale.app.opening import import_equation
from pidscale.app.output import Progress
from pidscale.app.show import show_set
from pidscale.convert.summary import StageProgress
from pidscale.inspect.verify import verify
from pidscale.paths import is_address
from pidscale.plain import printable
from pidscale.records.repair import repair_indices


def run(asked: argparse.Namespace) -> int:
    """Verify, show or repair a set.

    Args:
        asked: Parsed arguments: `part`, `path` and the options of that part.

    Returns:
        The exit status: 0 if there are no findings, 2 otherwise.
    """
    if asked.part == "repair-index":
        return _repair(asked.path)
    import_equation(asked.equation)
    if asked.part == "verify":
        return _verify(asked.path, asked.equation)
    name = asked.path.rstrip("/").rsplit("/", 1)[-1] if is_address(asked.path) else Path(asked.path).resolve().name
    show_set(asked.path, asked.equation, asked.out or Path(f"{name}.png"))
    return 0


def _verify(path: str, equation: str | None) -> int:
    report = verify(path, StageProgress(), equation)
    for note in report.notes:
        print(f"note: {note}")
    _print_findings(report.findings)
    print(report.summary)
    return 2 if report.findings else 0


def _repair(path: str) -> int:
    progress = Progress("indices")
    done = repair_indices(path, progress)
    progress.close()
    for name in done.written:
        print(f"written again: {Path(path) / name}")
    _print_findings(done.left)
    print(f"{path}: {done.true} indices were true, {len(done.written)} written again, {len(done.left)} left")
    return 2 if done.left else 0


def _print_findings(findings: Sequence[str]) -> None:
    sys.stdout.flush()  # keeps the order of stdout and stderr
    for finding in findings:
        print(f"error: {printable(' '.join(finding.split()))}", file=sys.stderr)
