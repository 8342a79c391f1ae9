"""`pidscale evaluate`: measure a run and write its report."""

from __future__ import annotations

from pidscale.app.output import Progress
from pidscale.compare.run import evaluate, report_path
from pidscale.compare.tables import table
from pidscale.config import Settings
from pidscale.paths import absolute


def run(settings: Settings) -> None:
    """Measure every method of the run, print the table, and write runs/NAME/report."""
    settings = absolute(settings)
    progress = Progress("evaluate")
    result = evaluate(settings, progress)
    progress.close()
    print(table(result))
    print(f"report: {report_path(settings)}")
