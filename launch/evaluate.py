"""Measure a run and write its report: python launch/evaluate.py run.name=NAME evaluate.samples=1024"""

from __future__ import annotations

from entry import run

from pidscale.compare.run import evaluate, report_path
from pidscale.compare.tables import table
from pidscale.config import Settings
from pidscale.meter import ProgressLine
from pidscale.paths import absolute


def main(settings: Settings) -> None:
    """Measure every method the run holds."""
    settings = absolute(settings)
    line = ProgressLine("evaluate", 1)

    def show(done: int, total: int, note: str) -> None:
        line.total = total
        line.show(done, note)

    result = evaluate(settings, show)
    line.close()
    print(table(result))
    print(f"report: {report_path(settings)}")


if __name__ == "__main__":
    run(main, phases=())
