"""Rebuild the pages of README and docs that show what benchmarks measured, or say which differ from their figures.

python -m benchmarks.pages [NAME ...] [--check]     all pages, or these, from benchmarks/results
python -m benchmarks.pages NAME --json FILE         print one page from another file, and write nothing

Pictures of the equations are drawn by `python -m benchmarks.pages.pictures`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.pages import (
    closed_form,
    demo,
    equations,
    faults,
    gpu,
    grids,
    head,
    heads,
    loader,
    memory,
    method,
    methods,
    metrics,
    precision,
    programs,
    rollout,
    sensors,
    side_by_side,
    sizes,
    space,
    students,
    tasks,
    zoo,
)
from benchmarks.pages.builder import between
from benchmarks.report import RESULTS

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Page:
    """A page: its file, its text as a function of a result, the name of that result, and the markers of a part of a file."""

    path: str
    text: Callable[[dict[str, Any]], str]
    result: str
    markers: tuple[str, str] | None = None


PAGES = {
    "closed_form": Page("docs/closed_form.md", closed_form.page, "closed_form"),
    "demo": Page("docs/demo.md", demo.page, "demo", demo.WHOLE),
    "equations": Page("docs/equations/README.md", equations.page, "residuals"),
    "faults": Page("docs/faults.md", faults.page, "faults"),
    "gpu": Page("docs/gpu.md", gpu.page, "gpu"),
    "grids": Page("docs/grids.md", grids.page, "grids"),
    "head": Page("docs/head_measured.md", head.page, "head"),
    "heads": Page("docs/head_training.md", heads.page, "heads"),
    "loader": Page("docs/loader.md", loader.page, "loader"),
    "memory": Page("docs/split_memory.md", memory.page, "memory"),
    "methods": Page("docs/methods.md", methods.page, "methods"),
    **{
        f"method_{name}": Page("docs/method.md", text, "method", method.markers(name))
        for name, text in method.PARTS.items()
    },
    "metrics": Page("docs/metrics.md", metrics.page, "demo", metrics.MARKERS),
    "precision": Page("docs/student.md", precision.page, "precision", precision.MARKERS),
    "programs": Page("docs/student.md", programs.page, "programs", programs.MARKERS),
    "results": Page("README.md", demo.summary, "demo", demo.MAIN),
    "rollout": Page("docs/rollout.md", rollout.page, "rollout"),
    "sensors": Page("docs/tasks.md", sensors.page, "sensors", sensors.MARKERS),
    "side_by_side": Page("docs/side_by_side.md", side_by_side.page, "papers"),
    "sizes_plans": Page("docs/sizes.md", sizes.plans, "sizes", sizes.PLANS),
    "sizes_steps": Page("docs/sizes.md", sizes.steps, "sizes", sizes.STEPS),
    "space": Page("docs/split_measured.md", space.page, "space"),
    "students": Page("students/README.md", students.page, "students"),
    "summary": Page("README.md", side_by_side.summary, "papers", (side_by_side.BEGIN, side_by_side.END)),
    "tasks": Page("docs/tasks_measured.md", tasks.page, "tasks"),
    "zoo": Page("docs/zoo.md", zoo.page, "zoo"),
}


def files(name: str) -> dict[Path, str]:
    """Return what the files of a page must hold; none where its benchmark has left no result."""
    page = PAGES[name]
    source = ROOT / RESULTS / f"{page.result}.json"
    if not source.exists():
        return {}
    result = json.loads(source.read_text())
    path = ROOT / page.path
    if page.markers is not None:
        return {path: between(path.read_text(), *page.markers, page.text(result))}
    found = {path: page.text(result)}
    if name == "equations":
        found |= {path.with_name(f"{row['pde']}.md"): equations.equation(row) for row in result["rows"]}
    return found


def main() -> None:
    """Write or check the pages that were asked for, or print one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help=f"any of {', '.join(PAGES)}")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with status 1 if a page differs")
    parser.add_argument("--json", type=Path, help="print the one page that is named, from this file")
    arguments = parser.parse_args()
    if unknown := set(arguments.name) - set(PAGES):
        parser.error(f"no page named {', '.join(sorted(unknown))}; expected any of {', '.join(PAGES)}")
    if arguments.json:
        if len(arguments.name) != 1:
            parser.error("--json: name one page")
        print(PAGES[arguments.name[0]].text(json.loads(arguments.json.read_text())))
        return
    wrong = []
    for name in arguments.name or PAGES:
        texts = files(name)
        if arguments.name and not texts:
            raise SystemExit(
                f"error: {RESULTS / PAGES[name].result}.json: missing; run the benchmark of that name first"
            )
        for path, text in texts.items():
            if path.exists() and path.read_text() == text:
                continue
            wrong.append(path)
            if not arguments.check:
                path.write_text(text)
    for path in wrong:
        print(f"{'differs' if arguments.check else 'written'}: {path.relative_to(ROOT)}")
    raise SystemExit(bool(wrong) and arguments.check)


if __name__ == "__main__":
    main()
