"""The table of a comparison: means over seeds, when a training has paid, and the files."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pidscale.compare.sheet import TITLES, break_even, means, page_text, write_tables
from pidscale.dataset.problem import Problem, open_problem
from pidscale.figures.compare import best_of, pareto_figure
from pidscale.pde.base import Samples
from tests.small import settings

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def row(method: str, seed: int = 0, task: str = "sample", **values: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "nfe": 1,
        "residual_dual": 0.1,
        "swd_excess": 0.02,
        "ms_per_sample": 1.0,
        "solution_error": 0.1,
    }
    usual |= {"train_seconds": 100.0, "asked": {"method": method}, "trained": method.split("+")[0].removesuffix("-18")}
    return {"equation": "darcy", "seed": seed, "task": task, "row": method, "method": method} | usual | values


ROWS = [
    row("truth", nfe=0, train_seconds=0.0, solution_error=0.0),
    row("teacher-18", nfe=35, ms_per_sample=11.0, residual_dual=0.4),
    row("piddm", train_seconds=350.0, residual_dual=0.1),
    row("piddm", seed=1, train_seconds=450.0, residual_dual=0.3),
    row("piddm+solve", train_seconds=350.0, ms_per_sample=1.25),
    row("slow", train_seconds=200.0, ms_per_sample=12.0, residual_dual=None),
    row("direct", task="forward", nfe=0, error_pressure=0.02),
]


def test_means_and_deviations_over_seeds() -> None:
    found = {(one["task"], one["method"]): one for one in means(ROWS)}
    assert list(found)[:3] == [("sample", "truth"), ("sample", "teacher-18"), ("sample", "piddm")] and len(found) == 6
    piddm = found["sample", "piddm"]
    assert piddm["seeds"] == [0, 1] and piddm["residual_dual"] == pytest.approx(0.2)
    assert piddm["spread"]["residual_dual"] == pytest.approx(math.sqrt(0.02))
    assert found["sample", "truth"]["spread"] == {} and "residual_dual" not in found["sample", "slow"]


def test_a_training_has_paid_when_the_saved_time_makes_up_for_it() -> None:
    found = {
        one["method"]: one
        for one in break_even([one for one in means(ROWS) if one["task"] == "sample"], ["piddm", "slow"])
    }
    assert set(found) == {"piddm", "slow"}
    assert found["piddm"]["further_seconds"] == 300 and found["piddm"]["teacher"] == 30_000  # 10 ms saved each
    assert found["piddm"]["solver"] is None  # the solver takes 0.25 ms
    assert found["slow"]["teacher"] is None


def test_a_method_has_one_style_in_every_panel_and_in_the_legend() -> None:
    rows = [row("truth", train_seconds=0.0), row("exact", swd_excess=0.0), row("a"), row("b", solution_error=math.nan)]
    figure = pareto_figure(rows, TITLES)
    styles = [
        (line.get_label(), line.get_marker(), line.get_color())
        for axis in figure.axes
        for line in axis.lines
        if line.get_marker() != "None"
    ]
    assert len(styles) == 3 + 3 + 2 and len(set(styles)) == 4 and len({style[1:] for style in styles}) == 4
    assert [text.get_text() for text in figure.legends[0].texts] == ["truth", "exact", "a", "b"]


def test_the_points_that_nothing_beats() -> None:
    assert best_of([(3.0, 1.0), (1.0, 2.0), (2.0, 3.0), (2.0, 2.0), (1.0, 2.0)]) == [(1.0, 2.0), (3.0, 1.0)]


@pytest.fixture(scope="module")
def problem(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Problem:
    s = settings(small_shards, tmp_path_factory.mktemp("sheet"))
    return open_problem(s.pde, s.data)


META = {
    "versions": {"torch": "2"},
    "machine": "2 cores of <X>",
    "compare": {"seeds": [0, 1], "rows": {"piddm": {"method": "one_call"}}, "students": {"piddm": [], "slow": []}},
}
FAILED = [{"equation": "darcy", "seed": 0, "row": "pcfm", "task": "inverse", "failed": "no <memory>"}]


def page(folder: Path, problem: Problem) -> str:
    truth = problem.samples("test", 4)
    shown = {"truth": truth, "piddm": Samples(truth.fields * 1.1, truth.params)}
    text = page_text(ROWS, FAILED, META, {"darcy": (problem.pde, problem.grid)}, {"darcy": shown})
    (folder / "index.html").write_text(text)
    return (folder / "index.html").read_text()


def test_tables_hold_every_seed(tmp_path: Path) -> None:
    write_tables(tmp_path, ROWS, FAILED, META)
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found == {"rows": ROWS, "failed": FAILED, "meta": META}
    lines = list(csv.DictReader((tmp_path / "compare.csv").open()))
    assert [line["method"] for line in lines] == [one["method"] for one in ROWS] and "asked" not in lines[0]
    assert (
        lines[3]["residual_dual"] == "0.3" and lines[5]["residual_dual"] == "" and lines[6]["error_pressure"] == "0.02"
    )


def test_the_page_holds_all_and_loads_nothing(tmp_path: Path, problem: Problem) -> None:
    text = page(tmp_path, problem)
    assert not re.search(r"""(src|href)=["'](?!data:)""", text) and "http" not in text
    assert text.count("<h2>darcy, 16 x 16: ") == 2 and "no &lt;memory&gt;" in text and "2 cores of &lt;X&gt;" in text
    assert '<td data-value="0.2">0.2 <small>&plusmn; 0.1</small></td>' in text
    assert text.count("data:image/png;base64,") == 2  # pairs of measures, and fields


@pytest.mark.skipif(BROWSER is None, reason="needs chromium, which nothing else of pidscale needs")
def test_a_browser_draws_the_page_and_sorts_it(tmp_path: Path, problem: Problem) -> None:
    """A click on a title sorts; whatever goes wrong in a script is an attribute of the page."""
    text = page(tmp_path, problem)
    script = """<script>window.onerror = e => document.body.dataset.error = e;
      const heads = [...document.querySelectorAll("th")];
      const title = heads.find(h => h.textContent === "training s"); title.click();
      document.body.dataset.once = [...title.closest("table").tBodies[0].rows].map(r => r.cells[0].textContent).join();
      title.click();
      document.body.dataset.twice = [...title.closest("table").tBodies[0].rows].map(r => r.cells[0].textContent).join();
      document.body.dataset.images = [...document.images].filter(i => i.naturalWidth > 100).length;</script></body>"""
    (tmp_path / "index.html").write_text(text.replace("</body>", script))
    assert BROWSER is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=5000",
    ]
    command = [
        BROWSER,
        *options,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        f"file://{tmp_path / 'index.html'}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    body = re.search(r"<body[^>]*>", done.stdout)
    assert body is not None, done.stderr[-2000:]
    assert "data-error" not in body[0] and 'data-images="2"' in body[0]
    assert 'data-once="truth,teacher-18,slow,piddm+solve,piddm"' in body[0]
    assert 'data-twice="piddm,piddm+solve,slow,teacher-18,truth"' in body[0]
